//! A bounded number of channels, of which each request uses one.

use super::channel::{Channel, ChannelOptions};
use crate::limits::POOL_CHANNELS;

/// The channels of a thread. A channel without work has no connection, so that a pool of which nobody asks anything has none.
///
/// The queues of the channels are the queue of the pool: [`super::channel`] says what they hold, and when a unit is refused.
pub struct Pool {
    channels: [Channel; POOL_CHANNELS],
}

impl Pool {
    /// A pool on the calling thread, see [`Channel::open`].
    #[must_use]
    pub fn new(options: &ChannelOptions) -> Self {
        Self { channels: std::array::from_fn(|_| Channel::open(options.clone())) }
    }

    /// The channel with the fewest open units; the first one of several.
    ///
    /// A request keeps the channel for all of its units: on one channel they are carried out in their order.
    #[must_use]
    pub fn channel(&self) -> Channel {
        let [first, others @ ..] = &self.channels;
        let fewest = others
            .iter()
            .fold(first, |fewest, channel| if channel.open_units() < fewest.open_units() { channel } else { fewest });
        fewest.clone()
    }
}
