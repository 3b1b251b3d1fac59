/* All that go-dqlite 1.11 wants of libraft: one constant, and bool, which dqlite.h of its time did not bring (it calls no function of it). */
#ifndef RAFT_H
#define RAFT_H
#include <stdbool.h>
enum { RAFT_NOCONNECTION = 16 };
#endif
