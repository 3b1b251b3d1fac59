//! What followers take their data for: reads there are answered as long as it is young.

use super::net::MS;
use super::referee::{Verdict, must};
use super::{Server, World};

/// Followers do not see for how long messages were on their way, nor that their leader has been replaced: the longest
/// delay of this network, that of what a broken connection still brings, and two election timeouts. Most of the time
/// it is far less.
const LATE_MAX: u64 = (4000 + 9000 + 2 * 3000) * MS;

impl World {
    /// Everything up to `index` is acknowledged.
    pub(super) fn acknowledge(&mut self, index: u64) {
        if index > self.acknowledged {
            self.acknowledged = index;
            self.acknowledgements.push((self.now, index));
        }
    }

    /// What was acknowledged before the moment of which a follower believes to know everything is applied there.
    pub(super) fn check_follower(&mut self, id: u64) -> Verdict {
        let place = &self.places[usize::try_from(id - 1).unwrap()];
        let Server::Ours(it) = &place.server else { return Ok(()) };
        let Some(fresh_at) = it.consensus.fresh_at().filter(|_| !it.consensus.is_leader()) else {
            return Ok(());
        };
        let (fresh_at, applied) = (self.moment(id, fresh_at), it.machine.index.0);
        let missed = self.acknowledgements.partition_point(|it| it.1 <= applied);
        let Some(&(since, index)) = self.acknowledgements.get(missed) else { return Ok(()) };
        let late = fresh_at.saturating_sub(since);
        self.done.follower_late = self.done.follower_late.max(late);
        must!(
            late <= LATE_MAX,
            "server {id} has {applied} applied and lacks {index}, acknowledged {} ms before it counts as fresh",
            late / MS
        );
        Ok(())
    }
}
