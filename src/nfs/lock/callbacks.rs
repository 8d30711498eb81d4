//! Calls to clients: "you have the lock that you waited for", and "this server has restarted".

use super::Service;
use super::ranges::Client;
use super::table::{Callback, Grant};
use crate::nfs::rpc::client::{CallFailed, Function, Peer, call, port_of};
use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::nlm::{self, Form, Lock, LockArguments, LockResult, Procedure, Status, Width};
use ehpc_proto::nsm;
use ehpc_proto::xdr::{Decode, Encode, Opaque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// A client answers a call within this time, or is asked again.
const PATIENCE: Duration = Duration::from_secs(5);
/// First pause between two attempts; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A client that was not reached in this time is not told of the restart: as sm-notify has it.
const ANNOUNCE_FOR: Duration = Duration::from_secs(15 * 60);
/// Clients that are told at once.
const AT_ONCE: usize = 32;

/// Arguments that are encoded already.
pub(super) struct Encoded(pub(super) Vec<u8>);

impl Encode for Encoded {
    fn encode(&self, out: &mut Encoder) {
        out.bytes(&self.0);
    }
}

impl Service {
    /// Calls a program of a client, over TCP or else UDP.
    async fn call_client(
        &self,
        client: &Client,
        function: Function,
        arguments: &impl Encode,
        tcp_first: bool,
    ) -> Result<Vec<u8>, CallFailed> {
        let (host, from) = (client.address, Some(self.own_address));
        let Function { program, version, .. } = function;
        let mut failed = None;
        for tcp in [tcp_first, !tcp_first] {
            let mapper = SocketAddr::new(host, self.mapper_port);
            let result = match port_of(mapper, from, program, version, tcp, PATIENCE).await {
                Ok(port) => {
                    let to = SocketAddr::new(host, port);
                    let peer = if tcp { Peer::Tcp(to, from) } else { Peer::Udp(to, from) };
                    call(&peer, function, arguments, PATIENCE).await
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(result) => return Ok(result),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(CallFailed::Silent(PATIENCE)))
    }

    /// Waits; false when the server stops.
    async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

/// Tells a client that it has a lock, until it knows or does not want it.
pub(super) async fn tell(service: Arc<Service>, grant: Grant) {
    let ticket = grant.ticket;
    let client = Arc::clone(&grant.request.owner.client);
    let mut pause = PAUSE;
    while service.table.lock().is_unacknowledged(ticket) {
        match tell_once(&service, &grant).await {
            Ok(Some(Status::Granted)) => return service.acknowledged(ticket),
            // It was sent as a message: the answer comes as a call. Or the client restarts itself.
            Ok(None | Some(Status::DeniedGracePeriod | Status::Blocked)) => {}
            Ok(Some(status)) => {
                tracing::debug!(client = %client.address, ?status, "a client does not want the lock it waited for");
                return service.refused(ticket);
            }
            Err(error) => {
                tracing::debug!(client = %client.address, %error, "a client was not told of its lock; again soon");
            }
        }
        if !service.pause(pause).await {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn tell_once(service: &Service, grant: &Grant) -> Result<Option<Status>, CallFailed> {
    let Callback { file, version, message } = &grant.callback;
    let request = &grant.request;
    let cookie = grant.ticket.to_be_bytes();
    let arguments = LockArguments {
        cookie: &cookie,
        block: false,
        exclusive: request.exclusive,
        lock: Lock {
            caller: &request.owner.client.name,
            file,
            owner: &request.owner.handle,
            svid: request.owner.svid,
            offset: request.range.first,
            length: request.range.length(),
        },
        reclaim: false,
        state: 0,
    };
    let mut out = Encoder::new();
    arguments.encode(Form::Test, Width::of_version(*version), &mut out);
    let procedure = if *message { Procedure::GrantedMsg } else { Procedure::Granted };
    let function = Function { program: nlm::PROGRAM, version: *version, procedure: procedure as u32 };
    let result = service.call_client(&request.owner.client, function, &Encoded(out.finish()), true).await?;
    if *message {
        return Ok(None);
    }
    Ok(Some(LockResult::decode(&mut Decoder::new(&result))?.status))
}

impl Service {
    /// A client knows that it has a lock: what it gave for that goes to those who wait.
    pub(super) fn acknowledged(self: &Arc<Self>, ticket: u64) {
        let mut table = self.table.lock();
        table.acknowledged(ticket);
        self.tell_granted(&mut table);
    }

    /// A client does not want a lock: it goes to the next who waits.
    pub(super) fn refused(self: &Arc<Self>, ticket: u64) {
        let mut table = self.table.lock();
        table.refused(ticket);
        self.tell_granted(&mut table);
    }

    /// Answers an asynchronous call: once, since the client asks again when nothing comes.
    pub(super) fn answer_message(
        self: &Arc<Self>,
        client: Arc<Client>,
        (version, procedure): (u32, Procedure),
        result: Vec<u8>,
    ) {
        let service = Arc::clone(self);
        // As many as can be under way; a client that floods loses answers.
        let Ok(place) = Arc::clone(&self.answers).try_acquire_owned() else { return };
        self.runtime.spawn(async move {
            let _place = place;
            let function = Function { program: nlm::PROGRAM, version, procedure: procedure as u32 };
            if let Err(error) = service.call_client(&client, function, &Encoded(result), false).await {
                tracing::debug!(client = %client.address, %error, "the answer to an NLM message was not taken");
            }
        });
    }
}

/// Tells every client that this server has restarted: it is to take its locks back.
pub(super) fn announce(service: &Arc<Service>, clients: Vec<Arc<Client>>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    for client in clients {
        let (service, places) = (Arc::clone(service), Arc::clone(&places));
        service.runtime.clone().spawn(async move {
            let until = Instant::now() + ANNOUNCE_FOR;
            let mut pause = PAUSE;
            while Instant::now() < until {
                let told = {
                    let Ok(_place) = places.acquire().await else { return };
                    service.announce_to(&client).await
                };
                match told {
                    Ok(_) => {
                        tracing::info!(client = %client.address, "a client that held locks knows of the restart");
                        return;
                    }
                    Err(error) => tracing::debug!(client = %client.address, %error, "not told of the restart yet"),
                }
                if !service.pause(pause).await {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            tracing::warn!(client = %client.address,
                "a client that held locks could not be told of the restart: it is gone, or has lost them");
        });
    }
}

impl Service {
    async fn announce_to(&self, client: &Client) -> Result<Vec<u8>, CallFailed> {
        let name = rustix::system::uname();
        let notify = nsm::Notify { name: Opaque(name.nodename().to_bytes()), state: self.monitor.state() };
        let function = Function {
            program: nsm::PROGRAM,
            version: nsm::VERSION,
            procedure: nsm::Procedure::Notify as u32,
        };
        self.call_client(client, function, &notify, false).await
    }
}
