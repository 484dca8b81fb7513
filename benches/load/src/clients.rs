//! Who the generator calls as: a server that is loaded must know them.

/// Connections of a flood, each of a client of its own.
pub const OF_FLOOD: usize = 4;

/// A client per connection, as counters are many: one alone may not take all the room that a server has.
pub fn counter(connection: usize) -> String {
    format!("counter-{}", connection + 1)
}

/// A flood's.
pub fn flooder(connection: usize) -> String {
    format!("flood-{}", connection % OF_FLOOD + 1)
}
