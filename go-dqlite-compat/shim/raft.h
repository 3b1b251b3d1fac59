/* All that go-dqlite 1.11 wants of libraft: one constant (it calls no function of it). */
#ifndef RAFT_H
#define RAFT_H
enum { RAFT_NOCONNECTION = 16 };
#endif
