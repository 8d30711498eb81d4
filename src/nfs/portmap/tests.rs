//! The port mapper of our own, asked over real sockets.

use super::{Network, Portmap, Service, serve};
use crate::nfs::rpc::client::{CallFailed, Function, Peer, call};
use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::mount::List;
use ehpc_proto::portmap::{Binding, Entry, Mapping, PROGRAM, TCP, Text, UDP, procedure};
use ehpc_proto::rpc::Reply;
use ehpc_proto::xdr::{Decode, Encode, Opaque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(20);

/// A port that is free over TCP and UDP; another process may take it, then the start fails and the test says so.
fn free() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

fn services() -> Vec<Service> {
    let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    vec![
        Service { program: 100_003, version: 3, network: Network::Tcp, address: any(2049) },
        Service {
            program: 100_005,
            version: 3,
            network: Network::Udp,
            address: "10.1.2.3:700".parse().unwrap(),
        },
    ]
}

struct Fixture {
    mapper: Portmap,
    peers: [Peer; 2],
    port: u16,
}

async fn start() -> Fixture {
    let address = free();
    let mapper = serve::start_on(address, services()).await.unwrap();
    let peers = [Peer::Tcp(address, None), Peer::Udp(address, None)];
    Fixture { mapper, peers, port: address.port() }
}

async fn ask(
    peer: &Peer,
    version: u32,
    procedure: u32,
    arguments: &impl Encode,
) -> Result<Vec<u8>, CallFailed> {
    call(peer, Function { program: PROGRAM, version, procedure }, arguments, WAIT).await
}

fn mapping(program: u32, version: u32, protocol: u32, port: u32) -> Mapping {
    Mapping { program, version, protocol, port }
}

fn binding<'a>(program: u32, version: u32, network: &'a [u8], address: &'a [u8]) -> Binding<'a> {
    Binding { program, version, network: Opaque(network), address: Opaque(address), owner: Opaque(b"") }
}

fn text(result: &[u8]) -> String {
    String::from_utf8(Text::decode(&mut Decoder::new(result)).unwrap().0.to_vec()).unwrap()
}

#[tokio::test]
async fn version_2_tells_the_ports_over_tcp_and_udp() {
    let Fixture { mapper, peers, port } = start().await;
    for peer in &peers {
        ask(peer, 2, procedure::NULL, &()).await.unwrap();
        for (wanted, port) in [
            (mapping(100_003, 3, TCP, 0), 2049),
            (mapping(100_003, 3, UDP, 0), 0),
            (mapping(100_003, 4, TCP, 0), 0),
            (mapping(100_005, 3, UDP, 9), 700),
            (mapping(100_005, 3, 99, 0), 0),
        ] {
            let result = ask(peer, 2, procedure::GET, &wanted).await.unwrap();
            assert_eq!(result, u32::to_be_bytes(port), "{wanted:?}");
        }
        let dump = ask(peer, 2, procedure::DUMP, &()).await.unwrap();
        let dump = List::<Mapping>::decode(&mut Decoder::new(&dump)).unwrap().0;
        let own = u32::from(port);
        let mut expected = Vec::new();
        for protocol in [TCP, UDP] {
            expected.extend([4, 3, 2].map(|version| mapping(PROGRAM, version, protocol, own)));
        }
        expected.extend([mapping(100_003, 3, TCP, 2049), mapping(100_005, 3, UDP, 700)]);
        assert_eq!(dump, expected);
    }
    mapper.stop().await;
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "the port is free again");
}

#[tokio::test]
async fn versions_3_and_4_tell_universal_addresses_that_the_caller_reaches() {
    let Fixture { mapper, peers, .. } = start().await;
    for (peer, at) in peers.iter().zip(["127.0.0.1", "127.0.0.1"]) {
        for version in [3, 4] {
            let reached =
                ask(peer, version, procedure::GET, &binding(100_003, 3, b"tcp", b"")).await.unwrap();
            assert_eq!(text(&reached), format!("{at}.8.1"));
            let fixed = ask(peer, version, procedure::GET, &binding(100_005, 3, b"udp", b"")).await.unwrap();
            assert_eq!(text(&fixed), "10.1.2.3.2.188");
            let none = ask(peer, version, procedure::GET, &binding(100_003, 3, b"tcp6", b"")).await.unwrap();
            assert_eq!(text(&none), "", "an IPv4 listener is not reached over IPv6");
            assert!(ask(peer, version, procedure::GETTIME, &()).await.unwrap() > vec![0x60, 0, 0, 0]);
        }
        // Version 4 tells of another version of the program when asked by GETADDR, not by GETVERSADDR.
        let other = binding(100_003, 4, b"tcp", b"");
        assert_eq!(text(&ask(peer, 3, procedure::GET, &other).await.unwrap()), "");
        assert_eq!(text(&ask(peer, 4, procedure::GET, &other).await.unwrap()), format!("{at}.8.1"));
        assert_eq!(text(&ask(peer, 4, procedure::GETVERSADDR, &other).await.unwrap()), "");
        let list = ask(peer, 4, procedure::GETADDRLIST, &binding(100_005, 3, b"udp", b"")).await.unwrap();
        let list = List::<Entry<'_>>::decode(&mut Decoder::new(&list)).unwrap().0;
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].address.0, list[0].protocol.0), (&b"10.1.2.3.2.188"[..], &b"udp"[..]));
        let dump = ask(peer, 4, procedure::DUMP, &()).await.unwrap();
        assert_eq!(List::<Binding<'_>>::decode(&mut Decoder::new(&dump)).unwrap().0.len(), 8);
    }
    mapper.stop().await;
}

#[tokio::test]
async fn what_is_not_served_is_refused_in_the_words_of_rpc() {
    let Fixture { mapper, peers, .. } = start().await;
    let refused = |result: Result<Vec<u8>, CallFailed>| match result {
        Err(CallFailed::Refused(reply)) => reply,
        other => panic!("{other:?}"),
    };
    for peer in &peers {
        assert_eq!(refused(ask(peer, 2, procedure::CALLIT, &()).await), Reply::ProcedureUnavailable);
        assert_eq!(refused(ask(peer, 4, procedure::INDIRECT, &()).await), Reply::ProcedureUnavailable);
        assert_eq!(refused(ask(peer, 2, procedure::GET, &7u32).await), Reply::GarbageArguments);
        assert_eq!(refused(ask(peer, 5, 0, &()).await), Reply::ProgramMismatch { low: 2, high: 4 });
        let other = Function { program: 100_003, version: 3, procedure: 0 };
        assert_eq!(refused(call(peer, other, &(), WAIT).await), Reply::ProgramUnavailable);
    }
    mapper.stop().await;
}

/// Asks the table: from where, version, procedure, arguments; the last word of the reply.
type Ask<'a> = dyn FnMut(&str, u32, u32, &dyn Fn(&mut Encoder)) -> u32 + 'a;

#[test]
fn only_root_of_this_machine_registers_and_nobody_replaces_ours() {
    use super::table::{Circumstances, Table};
    use ehpc_proto::rpc::{Call, Credential};
    let mut table = Table::new(services());
    let mut ask = |from: &str, version: u32, procedure: u32, arguments: &dyn Fn(&mut Encoder)| {
        let mut out = Encoder::new();
        let call = Call { xid: 1, program: PROGRAM, version, procedure, credential: Credential::None };
        call.encode(&mut out);
        arguments(&mut out);
        let at = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let around = Circumstances { from: from.parse().unwrap(), at, now: 0 };
        let answer = table.answer(around, out.as_slice()).unwrap();
        u32::from_be_bytes(*answer.last_chunk().unwrap())
    };
    let new = mapping(100_024, 1, UDP, 900);
    let get = |ask: &mut Ask<'_>| ask("10.0.0.9:5000", 2, procedure::GET, &|out| new.encode(out));
    for stranger in ["10.0.0.1:700", "127.0.0.1:5000"] {
        assert_eq!(ask(stranger, 2, procedure::SET, &|out| new.encode(out)), 0, "{stranger}");
    }
    assert_eq!(get(&mut ask), 0);
    let root = "127.0.0.1:700";
    assert_eq!(ask(root, 2, procedure::SET, &|out| new.encode(out)), 1);
    assert_eq!(
        ask(root, 2, procedure::SET, &|out| mapping(100_024, 1, UDP, 901).encode(out)),
        0,
        "there is one"
    );
    assert_eq!(get(&mut ask), 900);
    let ours = mapping(100_003, 3, TCP, 666);
    assert_eq!(ask(root, 2, procedure::UNSET, &|out| ours.encode(out)), 0);
    assert_eq!(ask(root, 2, procedure::SET, &|out| ours.encode(out)), 0);
    assert_eq!(ask(root, 2, procedure::GET, &|out| ours.encode(out)), 2049);
    let gone = binding(100_024, 1, b"udp", b"");
    assert_eq!(ask("10.0.0.1:700", 4, procedure::UNSET, &|out| gone.encode(out)), 0);
    assert_eq!(ask(root, 4, procedure::UNSET, &|out| gone.encode(out)), 1);
    assert_eq!(get(&mut ask), 0);
    // A table that is full takes no more.
    let taken =
        (0..300).filter(|n| ask(root, 2, procedure::SET, &|out| mapping(*n, 1, UDP, 9).encode(out)) == 1);
    assert_eq!(taken.count(), 256);
}
