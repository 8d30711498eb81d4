//! The port mapper of our own: port 111 over TCP and UDP.

use super::table::{Circumstances, Table};
use super::{Network, Portmap, PortmapError, Service};
use crate::nfs::rpc::{Answerer, Arrival, Reply, datagrams, streams};
use ehpc_proto::portmap::{PORT, PORTMAP, PROGRAM, RPCBIND_3, RPCBIND_4};
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

struct Mapper(Mutex<Table>);

impl Answerer for Mapper {
    fn answer(&self, arrival: Arrival, call: Vec<u8>, reply: Reply) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
        let around = Circumstances { from: arrival.from, at: arrival.at, now };
        if let Some(answer) = self.0.lock().answer(around, &call) {
            reply(answer);
        }
    }
}

/// Answers for `services` on port 111 of `listen`.
pub(super) async fn start(services: Vec<Service>, listen: IpAddr) -> Result<Portmap, PortmapError> {
    start_on(SocketAddr::new(listen, PORT), services).await
}

/// The same on any port.
pub(in crate::nfs) async fn start_on(
    address: SocketAddr,
    services: Vec<Service>,
) -> Result<Portmap, PortmapError> {
    let failed =
        |network| move |source: io::Error| PortmapError::Listen { address: address.ip(), network, source };
    let tcp = TcpListener::bind(address).await.map_err(failed("TCP"))?;
    let address = tcp.local_addr().map_err(failed("TCP"))?;
    let udp = UdpSocket::bind(address).await.map_err(failed("UDP"))?;
    let versions = [(PROGRAM, RPCBIND_4), (PROGRAM, RPCBIND_3), (PROGRAM, PORTMAP)];
    let itself =
        [Network::Tcp, Network::Udp].into_iter().flat_map(|network| Service::at(address, network, &versions));
    let table = Table::new(itself.chain(services).collect());
    let mapper: Arc<dyn Answerer> = Arc::new(Mapper(Mutex::new(table)));
    let stop = CancellationToken::new();
    let tasks = vec![
        tokio::spawn(streams::serve(tcp, Arc::clone(&mapper), stop.clone())),
        tokio::spawn(datagrams::serve(udp, mapper, stop.clone())),
    ];
    Ok(Portmap { stop, tasks, how: "told by this process on port 111" })
}
