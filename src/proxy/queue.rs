//! Who waits for a server, in order of arrival. Pure: who waits is a `T` that this module only keeps.
//!
//! A request that must go to one server (its cookie says so) waits in that server's line, the others in the backend's.
//! A server that has room takes the one of both lines that came first, as HAProxy does.

use std::collections::BTreeMap;

/// A line that can be waited in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Of one server, by its index.
    Server(usize),
    /// Of the whole backend.
    Backend,
}

/// One line.
#[derive(Debug)]
struct Line<T> {
    waiting: BTreeMap<u64, (T, u64)>,
    /// How many have left it to be served.
    served: u64,
    /// The most that have waited at once.
    most: usize,
}

/// All lines of a backend.
#[derive(Debug)]
pub struct Queues<T> {
    servers: Vec<Line<T>>,
    backend: Line<T>,
    next: u64,
}

/// One who is served.
#[derive(PartialEq, Eq, Debug)]
pub struct Next<T> {
    /// Where it waited.
    pub place: Place,
    /// Who.
    pub who: T,
    /// How many of its line were served from its arrival on, itself included (`%sq`, `%bq`).
    pub position: u32,
}

impl<T> Line<T> {
    fn new() -> Line<T> {
        Line { waiting: BTreeMap::new(), served: 0, most: 0 }
    }

    fn first(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(key, _)| *key)
    }

    /// Position of one who came when `before` had been served.
    fn position(&self, before: u64) -> u32 {
        u32::try_from(self.served - before + 1).unwrap_or(u32::MAX)
    }
}

impl<T> Queues<T> {
    /// Nobody waits; as many lines as there are servers, and the backend's.
    pub fn new(servers: usize) -> Queues<T> {
        Queues { servers: (0..servers).map(|_| Line::new()).collect(), backend: Line::new(), next: 0 }
    }

    fn line(&self, place: Place) -> &Line<T> {
        match place {
            Place::Server(server) => &self.servers[server],
            Place::Backend => &self.backend,
        }
    }

    fn line_mut(&mut self, place: Place) -> &mut Line<T> {
        match place {
            Place::Server(server) => &mut self.servers[server],
            Place::Backend => &mut self.backend,
        }
    }

    /// Goes to the end of a line; the key is for [`Queues::leave`].
    pub fn join(&mut self, place: Place, who: T) -> u64 {
        let key = self.next;
        self.next += 1;
        let line = self.line_mut(place);
        line.waiting.insert(key, (who, line.served));
        line.most = line.most.max(line.waiting.len());
        key
    }

    /// Goes away unserved. `None`: it has been served or sent away already. Else its position so far.
    pub fn leave(&mut self, place: Place, key: u64) -> Option<u32> {
        let line = self.line_mut(place);
        let (_, before) = line.waiting.remove(&key)?;
        Some(line.position(before))
    }

    /// How far one who still waits has come: as [`Next::position`] if it were served now.
    pub fn position(&self, place: Place, key: u64) -> Option<u32> {
        let line = self.line(place);
        line.waiting.get(&key).map(|(_, before)| line.position(*before))
    }

    /// Takes who is next for `server`: of its own line, and of the backend's if the server takes from there.
    pub fn next(&mut self, server: usize, from_backend: bool) -> Option<Next<T>> {
        let own = self.servers[server].first();
        let common = if from_backend { self.backend.first() } else { None };
        let place = match (own, common) {
            (None, None) => return None,
            (Some(own), Some(common)) if common < own => Place::Backend,
            (Some(_), _) => Place::Server(server),
            (None, Some(_)) => Place::Backend,
        };
        let line = self.line_mut(place);
        let (_, (who, before)) = line.waiting.pop_first()?;
        let position = line.position(before);
        line.served += 1;
        Some(Next { place, who, position })
    }

    /// Sends everybody in a server's line away, to choose again: (who, position).
    pub fn send_away(&mut self, server: usize) -> Vec<(T, u32)> {
        let line = &mut self.servers[server];
        let gone = std::mem::take(&mut line.waiting);
        gone.into_values().map(|(who, before)| (who, line.position(before))).collect()
    }

    /// How many wait in a line.
    pub fn waiting(&self, place: Place) -> usize {
        self.line(place).waiting.len()
    }

    /// The most that have waited in a line at once.
    pub fn most(&self, place: Place) -> usize {
        self.line(place).most
    }

    /// Forgets the highest marks (`clear counters`).
    pub fn clear_most(&mut self) {
        for line in self.servers.iter_mut().chain([&mut self.backend]) {
            line.most = line.waiting.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_of_both_lines_is_served_first() {
        let mut queues = Queues::new(2);
        queues.join(Place::Backend, "any 1");
        queues.join(Place::Server(0), "only 0");
        queues.join(Place::Backend, "any 2");
        queues.join(Place::Server(1), "only 1");
        let order: Vec<&str> = std::iter::from_fn(|| queues.next(0, true)).map(|next| next.who).collect();
        assert_eq!(order, ["any 1", "only 0", "any 2"]);
        assert_eq!(queues.waiting(Place::Server(1)), 1);
    }

    #[test]
    fn a_server_that_takes_nobody_new_serves_its_own_line() {
        let mut queues = Queues::new(1);
        queues.join(Place::Backend, 1);
        queues.join(Place::Server(0), 2);
        assert_eq!(queues.next(0, false).map(|next| next.who), Some(2));
        assert_eq!(queues.next(0, false), None);
    }

    #[test]
    fn a_position_counts_who_was_served_from_its_arrival_on() {
        let mut queues = Queues::new(1);
        let keys: Vec<u64> = (0..4).map(|n| queues.join(Place::Backend, n)).collect();
        assert_eq!(queues.position(Place::Backend, keys[1]), Some(1));
        assert_eq!(queues.leave(Place::Backend, keys[1]), Some(1));
        assert_eq!(queues.position(Place::Backend, keys[1]), None);
        let positions: Vec<u32> =
            std::iter::from_fn(|| queues.next(0, true)).map(|next| next.position).collect();
        assert_eq!(positions, [1, 2, 3], "who gave up is not counted");
        queues.join(Place::Backend, 9);
        assert_eq!(queues.next(0, true).map(|next| next.position), Some(1));
        assert_eq!(queues.most(Place::Backend), 4);
    }

    #[test]
    fn who_was_served_cannot_leave() {
        let mut queues = Queues::new(1);
        let key = queues.join(Place::Server(0), ());
        assert!(queues.next(0, true).is_some());
        assert_eq!(queues.leave(Place::Server(0), key), None);
    }

    #[test]
    fn a_line_can_be_sent_away() {
        let mut queues = Queues::new(2);
        queues.join(Place::Server(0), "a");
        queues.join(Place::Server(1), "b");
        queues.join(Place::Server(0), "c");
        assert_eq!(queues.send_away(0), [("a", 1), ("c", 1)]);
        assert_eq!(queues.waiting(Place::Server(1)), 1);
    }
}
