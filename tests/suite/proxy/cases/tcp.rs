//! mode tcp with tcplog.

use super::super::case::{Act, Answer, Group, When, case, send};
use super::{group, guide};

pub(super) fn groups() -> Vec<Group> {
    let configuration = guide(
        "defaults tcp\n log global\n mode tcp\n option tcplog\n timeout connect 5s\n timeout client 1s\n timeout server 1s\n retries 1\n\
         listen echo\n bind {ip}:80\n server s1 {ip}:9001\n\
         listen dead\n bind {ip}:81\n server s1 {ip}:9009\n\
         listen redispatch\n bind {ip}:82\n option redispatch 1\n server s1 {ip}:9009\n server s2 {ip}:9002\n\
         listen none\n bind {ip}:83\n\
         listen null\n bind {ip}:84\n option dontlognull\n server s1 {ip}:9001\n\
         listen rules\n bind {ip}:85\n tcp-request connection reject if { src 127.0.0.0/8 }\n server s1 {ip}:9001\n",
    );
    // To a raw server: greet, read, answer, end.
    let talk = |acts: Vec<Act>| [Answer { when: When::Connected, acts }];
    let cases = vec![
        case("talk")
            .until("hello")
            .send("ping")
            .until("pong")
            .close()
            .answers(talk(vec![send("hello"), Act::Await("ping"), send("pong"), Act::Hold]))
            .shows(" echo echo/s1 "),
        case("server closes").until("hello").end().answers(talk(vec![send("hello"), Act::Close])),
        case("server resets").until("hello").end().answers(talk(vec![
            send("hello"),
            Act::Pause(50),
            Act::Reset,
        ])),
        case("client half-closes")
            .until("hello")
            .send("ping")
            .half_close()
            .until("pong")
            .end()
            .answers(talk(vec![send("hello"), Act::Await("ping"), send("pong"), Act::Close])),
        case("client resets")
            .until("hello")
            .send("ping")
            .arrived("ping")
            .reset()
            .answers(talk(vec![send("hello"), Act::Hold])),
        case("server half-closes").until("hello").send("late").arrived("late").close().answers(talk(vec![
            send("hello"),
            Act::HalfClose,
            Act::Hold,
        ])),
        case("idle").until("hello").end().answers(talk(vec![send("hello"), Act::Hold])).shows("[closed]"),
        case("dead").port(81).send("x").end().shows("SC"),
        case("redispatch").port(82).until("hello").end().answers(talk(vec![send("hello"), Act::Close])),
        case("no servers").port(83).end().shows("SC"),
        case("connects and goes")
            .port(80)
            .until("hello")
            .close()
            .answers(talk(vec![send("hello"), Act::Hold])),
        case("rejected").port(85).loopback().end().logs(0),
        case("not rejected").port(85).until("hello").end().answers(talk(vec![send("hello"), Act::Close])),
    ];
    vec![group("tcp", configuration, cases)]
}
