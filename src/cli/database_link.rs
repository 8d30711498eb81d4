//! The database's lane over the replication link: what `database::link` asks for, made of channels.

use crate::database::link::{BoxFuture, Dial, Wire, WireIn, WireOut};
use crate::replication::channel::{self, Channel, ChannelIn, ChannelOut, DATABASE, DialOptions};
use bytes::Bytes;
use ehpc_proto::replication::wire::Payload;

/// Dials the backup for the database's lane.
pub(super) struct DatabaseDial {
    options: DialOptions,
}

impl DatabaseDial {
    /// To the backup that these options name.
    pub(super) fn new(options: DialOptions) -> DatabaseDial {
        DatabaseDial { options }
    }
}

impl Dial for DatabaseDial {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Wire>, String>> {
        Box::pin(async {
            let channel = channel::dial(&self.options, DATABASE).await;
            channel.map(wire).map_err(|down| down.to_string())
        })
    }
}

/// A channel as a wire, at either end.
pub(super) fn wire(channel: Channel) -> Box<dyn Wire> {
    Box::new(ChannelWire(channel))
}

struct ChannelWire(Channel);

impl Wire for ChannelWire {
    fn split(self: Box<Self>) -> (Box<dyn WireIn>, Box<dyn WireOut>) {
        (Box::new(Input(self.0.input)), Box::new(Output(self.0.output)))
    }
}

struct Input(ChannelIn);

impl WireIn for Input {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async { self.0.next().await.map_err(|error| error.to_string()) })
    }
}

struct Output(ChannelOut);

impl WireOut for Output {
    fn send(&mut self, message: Payload) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.0.send(message).await.map_err(|error| error.to_string()) })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.0.flush().await.map_err(|error| error.to_string()) })
    }

    fn finish(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.0.finish().await.map_err(|error| error.to_string()) })
    }
}
