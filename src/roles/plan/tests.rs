use super::*;
use crate::base::Prng;

/// Servers as text: `1v@2+3` is server 1, a voter in failure domain 2 with weight 3; `s` is a stand-by, `p` a spare,
/// and `!` at the end one that did not answer. The first is the leader.
fn servers(text: &str) -> Vec<Server> {
    text.split_whitespace().map(server).collect()
}

fn server(text: &str) -> Server {
    let (text, online) = text.strip_suffix('!').map_or((text, true), |text| (text, false));
    let (text, weight) = text.split_once('+').unwrap_or((text, "0"));
    let (text, domain) = text.split_once('@').unwrap_or((text, "0"));
    let (id, role) = text.split_at(text.len() - 1);
    let role = match role {
        "v" => Role::Voter,
        "s" => Role::StandBy,
        _ => Role::Spare,
    };
    let metadata = Metadata { failure_domain: domain.parse().unwrap(), weight: weight.parse().unwrap() };
    Server { id: NodeId(id.parse().unwrap()), role, online: online.then_some(metadata) }
}

fn letter(role: Role) -> char {
    match role {
        Role::Voter => 'v',
        Role::StandBy => 's',
        Role::Spare => 'p',
    }
}

fn planned(text: &str, voters: i32, standbys: i32) -> String {
    let servers = servers(text);
    let changes = plan(&servers, Targets { voters, standbys }, servers[0].id);
    let words: Vec<_> =
        changes.iter().map(|change| format!("{}{}", change.id, letter(change.role))).collect();
    words.join(" ")
}

#[test]
fn roles_follow_the_targets() {
    for (cluster, voters, standbys, changes) in [
        // Nothing to do.
        ("1v", 3, 0, ""),
        ("1v 2v 3v", 3, 0, ""),
        ("1v 2v 3v 4s 5p", 3, 1, ""),
        // What the C library was seen to do with three spares that were added.
        ("1v@0 2p@0 3p@1 4p@1", 3, 1, "3v 4v 2s"),
        // Too few voters: other failure domains first, then less weight, then stand-bys, then the order as it is.
        ("1v 2p@0 3p@7", 2, 0, "3v"),
        ("1v@5 2p@5+1 3p@5+2", 2, 0, "2v"),
        ("1v@5 2p@5+2 3p@5+1", 2, 0, "3v"),
        ("1v@5 2p@6+9 3p@5+1", 2, 0, "2v"),
        ("1v 2p 3s", 2, 0, "3v"),
        ("1v 2p 3p", 2, 0, "2v"),
        ("1v 2p 3p", 5, 0, "2v 3v"),
        // All 64 bits of a weight count: in C they are cut to an int.
        ("1v 2p+4294967296 3p+1", 2, 0, "3v"),
        // More failure domains than C counts.
        ("1v@1 2v@2 3v@3 4v@4 5v@5 6v@6 7p@6 8p@7", 7, 0, "8v"),
        // A stand-by that becomes a voter is missed among the stand-bys.
        ("1v 2v 3s 4p", 3, 1, "3v 4s"),
        // Too many: from full failure domains, of great weight; never the leader.
        ("1v 2v@1 3v@1", 2, 0, "2p"),
        ("1v@1 2v@1+1 3v@1+2", 2, 0, "3p"),
        ("1v+9 2v 3v", 1, 0, "2p 3p"),
        ("1v 2v", 0, 0, "2p"),
        ("1v 2v", -1, -1, "2p"),
        ("1v 2s 3s+1", 1, 1, "3p"),
        ("1v 2s 3s", 1, 0, "2p 3p"),
        // One voter too many stands by.
        ("1v 2v 3v", 2, 1, "2s"),
        // Whoever does not answer is a spare, and not chosen.
        ("1v 2v 3v!", 3, 0, "3p"),
        ("1v 2v 3v! 4p", 3, 0, "3p 4v"),
        ("1v 2v 3v 4s!", 3, 1, "4p"),
        ("1v 2p! 3p", 3, 2, "3v"),
        ("1v 2v 3v 4v! 5v! 6s 7p", 5, 1, "4p 5p 6v 7v"),
    ] {
        assert_eq!(planned(cluster, voters, standbys), changes, "{cluster}, {voters} and {standbys}");
    }
}

#[test]
fn the_leader_counts_as_online_even_if_it_does_not_reach_itself() {
    assert_eq!(planned("1v! 2v 3v", 3, 0), "");
    assert_eq!(planned("1v! 2v 3v", 2, 0), "2p");
}

#[test]
fn without_a_majority_that_answers_nothing_is_changed() {
    for cluster in ["1v 2v!", "1v 2v! 3v! 4p", "1v 2v 3v! 4v! 5p 6s!"] {
        assert_eq!(planned(cluster, 3, 1), "", "{cluster}");
    }
}

#[test]
fn the_vote_goes_to_whoever_would_be_promoted_first() {
    for (cluster, successor_of_first) in [
        ("1v", None),
        ("1v 2v 3v", None),
        ("1v 2v 3v 4p", Some(4)),
        ("1v 2v 3v 4p 5s", Some(5)),
        ("1v 2v 3v 4p! 5p", Some(5)),
        ("1v 2v 3v 4p! 5s!", None),
        ("1v 2v@1 3v@2 4s@1 5p@3", Some(5)),
        ("1v 2v 3v 4p+2 5p+1", Some(5)),
        // The failure domain of whoever leaves is free.
        ("1v@9 2v@1 3v@2 4s@1 5p@9", Some(5)),
        // A voter that does not answer does not count for its domain.
        ("1v 2v@1! 3v@2 4p@2 5p@1", Some(5)),
        ("1s 2v 3v 4p", Some(4)),
    ] {
        let servers = servers(cluster);
        assert_eq!(successor(&servers, servers[0].id), successor_of_first.map(NodeId), "{cluster}");
    }
}

fn random_server(prng: &mut Prng, id: u64) -> Server {
    let role = [Role::Voter, Role::StandBy, Role::Spare][usize::try_from(prng.below(3)).unwrap()];
    let metadata = Metadata { failure_domain: prng.below(3), weight: prng.below(3) };
    Server { id: NodeId(id), role, online: (prng.below(4) > 0).then_some(metadata) }
}

fn answering(servers: &[Server], role: Role) -> usize {
    servers.iter().filter(|server| server.role == role && server.online.is_some()).count()
}

fn has_majority(servers: &[Server]) -> bool {
    let voters = servers.iter().filter(|server| server.role == Role::Voter).count();
    answering(servers, Role::Voter) > voters / 2
}

/// One change after another, as the leader would carry them out, with what has to hold after each.
fn carry_out(servers: &mut [Server], changes: &[Change], me: NodeId, about: &str) {
    for (at, change) in changes.iter().enumerate() {
        assert!(
            changes[..at].iter().all(|other| other.id != change.id),
            "{about}: one change for each server"
        );
        let server = servers.iter_mut().find(|server| server.id == change.id).unwrap();
        assert_ne!(server.role, change.role, "{about}: {change:?} changes something");
        assert!(
            change.role == Role::Spare || server.online.is_some(),
            "{about}: {change:?} of one that is gone"
        );
        assert_ne!(change.id, me, "{about}: the leader stays");
        server.role = change.role;
        assert!(has_majority(servers), "{about}: {change:?} leaves no majority in {servers:?}");
    }
}

#[test]
fn any_cluster_with_a_majority_keeps_it_and_gets_what_it_should_have_in_one_round() {
    for seed in 0..20_000 {
        let mut prng = Prng::new(seed);
        let count = 1 + prng.below(8);
        let mut cluster: Vec<_> = (1..=count).map(|id| random_server(&mut prng, id)).collect();
        let me = NodeId(1 + prng.below(count));
        for server in cluster.iter_mut().filter(|server| server.id == me) {
            (server.role, server.online) = (Role::Voter, Some(server.online.unwrap_or_default()));
        }
        let [voters, standbys] = [6, 4].map(|bound| i32::try_from(prng.below(bound)).unwrap());
        let targets = Targets { voters, standbys };
        let about = format!("seed {seed}, {targets:?}, leader {me}");
        for _ in 0..4 {
            let changes = plan(&cluster, targets, me);
            if !has_majority(&cluster) {
                assert_eq!(changes, [], "{about}");
                break;
            }
            carry_out(&mut cluster, &changes, me, &about);
            assert_eq!(plan(&cluster, targets, me), [], "{about}: {cluster:?} after {changes:?}");

            let online = cluster.iter().filter(|server| server.online.is_some()).count();
            let voters = usize::try_from(voters).unwrap().clamp(1, online);
            let standbys = usize::try_from(standbys).unwrap().min(online - voters);
            let found = [Role::Voter, Role::StandBy].map(|role| answering(&cluster, role));
            assert_eq!(found, [voters, standbys], "{about}: {cluster:?}");
            // Another one goes or comes back.
            let at = usize::try_from(prng.below(count)).unwrap();
            if cluster[at].id != me {
                cluster[at].online = random_server(&mut prng, 0).online;
            }
        }
    }
}
