//! What a case is: bytes that the client sends, what the servers do, and a text that must come of it.

/// Cases that share one configuration, run one after the other against one process.
pub(crate) struct Group {
    /// Letters and dashes.
    pub(crate) name: &'static str,
    /// haproxy.cfg; `{ip}` is the side's own address, `{dir}` a directory of its own.
    pub(crate) configuration: String,
    /// Server connections outlive requests here: how they end is not looked at.
    pub(crate) pooled: bool,
    /// nginx listens on port 9101, gunicorn on 9102.
    pub(crate) real: bool,
    /// In order.
    pub(crate) cases: Vec<Case>,
}

/// One exchange, or several, of one client.
#[derive(Clone)]
pub(crate) struct Case {
    /// Unique in its group.
    pub(crate) name: &'static str,
    /// What the client does.
    pub(crate) steps: Vec<Step>,
    /// What the servers do: the answer to the first request that reaches any of them, to the second, ...; the last repeats.
    pub(crate) answers: Vec<Answer>,
    /// Log lines to wait for.
    pub(crate) logs: usize,
    /// What HAProxy's transcript must contain: the case shows what its name says.
    pub(crate) shows: Vec<&'static str>,
    /// The client's address is of loopback's network.
    pub(crate) loopback: bool,
    /// Port of the proxy.
    pub(crate) port: u16,
}

/// What a client does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Leaves the sent bytes a moment on their own.
    Pause(u64),
    /// Reads a response; `true`: of HEAD or CONNECT, so without a body.
    Reply(bool),
    /// Reads until this is in what was read.
    Until(&'static str),
    /// Reads to the end.
    End,
    /// Says that it sends no more.
    HalfClose,
    /// Closes with a reset.
    Reset,
    /// Closes.
    Close,
    /// Waits until a server has got this.
    Arrived(&'static str),
    /// Is the connection kept? Asks once more on it.
    Probe,
    /// A further connection; the present one stays open.
    Another,
    /// Goes on with the first (0), the second connection.
    On(usize),
}

/// When a server begins to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// As soon as it is connected to.
    Connected,
    /// After the request's head.
    Head,
    /// After the whole request.
    Request,
}

/// What a server does with one request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// When.
    pub(crate) when: When,
    /// What.
    pub(crate) acts: Vec<Act>,
}

/// One thing that a server does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Reads until this has come on the connection.
    Await(&'static str),
    /// A moment.
    Pause(u64),
    /// Closes.
    Close,
    /// Says that it sends no more, and goes on reading.
    HalfClose,
    /// Closes with a reset.
    Reset,
    /// Reads to the end, answers nothing.
    Hold,
}

/// A case of this name: `GET /` of one client, as far as nothing else is said.
pub(crate) fn case(name: &'static str) -> Case {
    Case {
        name,
        steps: Vec::new(),
        answers: vec![ok("hello")],
        logs: 1,
        shows: Vec::new(),
        loopback: false,
        port: 80,
    }
}

impl Case {
    fn step(mut self, step: Step) -> Case {
        self.steps.push(step);
        self
    }
    pub(crate) fn send(self, text: impl AsRef<[u8]>) -> Case {
        self.step(Step::Send(text.as_ref().to_vec()))
    }
    pub(crate) fn reply(self) -> Case {
        self.step(Step::Reply(false))
    }
    pub(crate) fn reply_head(self) -> Case {
        self.step(Step::Reply(true))
    }
    pub(crate) fn until(self, text: &'static str) -> Case {
        self.step(Step::Until(text))
    }
    pub(crate) fn end(self) -> Case {
        self.step(Step::End)
    }
    pub(crate) fn pause(self, milliseconds: u64) -> Case {
        self.step(Step::Pause(milliseconds))
    }
    pub(crate) fn half_close(self) -> Case {
        self.step(Step::HalfClose)
    }
    pub(crate) fn reset(self) -> Case {
        self.step(Step::Reset)
    }
    pub(crate) fn close(self) -> Case {
        self.step(Step::Close)
    }
    pub(crate) fn arrived(self, text: &'static str) -> Case {
        self.step(Step::Arrived(text))
    }
    pub(crate) fn probe(self) -> Case {
        self.step(Step::Probe)
    }
    pub(crate) fn another(self) -> Case {
        self.step(Step::Another)
    }
    pub(crate) fn on(self, connection: usize) -> Case {
        self.step(Step::On(connection))
    }
    /// Sends, reads the answer, asks whether the connection is kept.
    pub(crate) fn ask(self, text: impl AsRef<[u8]>) -> Case {
        self.send(text).reply().probe()
    }
    pub(crate) fn answers(mut self, answers: impl Into<Vec<Answer>>) -> Case {
        self.answers = answers.into();
        self
    }
    /// The one answer: these bytes.
    pub(crate) fn answer(self, bytes: impl AsRef<[u8]>) -> Case {
        self.answers([raw(bytes)])
    }
    pub(crate) fn logs(mut self, lines: usize) -> Case {
        self.logs = lines;
        self
    }
    pub(crate) fn shows(mut self, text: &'static str) -> Case {
        self.shows.push(text);
        self
    }
    pub(crate) fn loopback(mut self) -> Case {
        self.loopback = true;
        self
    }
    pub(crate) fn port(mut self, port: u16) -> Case {
        self.port = port;
        self
    }
}

/// These bytes, after the whole request.
pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Answer {
    Answer { when: When::Request, acts: vec![Act::Send(bytes.as_ref().to_vec())] }
}

/// 200 with this body.
pub(crate) fn ok(body: &str) -> Answer {
    raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// Acts after the whole request.
pub(crate) fn acts(acts: impl Into<Vec<Act>>) -> Answer {
    Answer { when: When::Request, acts: acts.into() }
}

/// Sends these bytes.
pub(crate) fn send(bytes: impl AsRef<[u8]>) -> Act {
    Act::Send(bytes.as_ref().to_vec())
}
