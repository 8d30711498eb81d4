//! NLM: what is asked of the table, under which conditions, and how it is answered.

use super::Service;
use super::files::Files;
use super::ranges::{Client, Held, Owner, Range};
use super::table::{Answer, Callback, Request};
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::nlm::{
    Form, FreeAll, Holder, Lock, LockArguments, LockResult, Procedure, ShareArguments, ShareResult, Status,
    TestResult, Width,
};
use ehpc_proto::xdr::{Decode, Encode};
use std::net::IpAddr;
use std::sync::Arc;

/// What a call works with.
pub(in crate::nfs) struct LockContext<'a> {
    pub(in crate::nfs) service: &'a Arc<Service>,
    pub(in crate::nfs) files: Files<'a>,
    pub(in crate::nfs) from: IpAddr,
    /// Of NLM: 1, 3 or 4.
    pub(in crate::nfs) version: u32,
}

impl LockContext<'_> {
    /// Does `procedure`: reads its arguments, writes its result; true if it is a refusal. May write to the disk.
    pub(in crate::nfs) fn run(
        &self,
        procedure: Procedure,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<bool, DecodeError> {
        use Procedure::*;
        let failed = match procedure {
            Null => false,
            Test => self.test(&self.arguments(Form::Test, input)?).encode_in(self.version, out),
            Lock => self.result(self.arguments(Form::Lock, input)?, Self::lock, out),
            NmLock => self.result(self.arguments(Form::Lock, input)?, Self::lock_unmonitored, out),
            Cancel => self.result(self.arguments(Form::Cancel, input)?, Self::cancel, out),
            Unlock => self.result(self.arguments(Form::Unlock, input)?, Self::unlock, out),
            TestMsg => {
                let arguments = self.arguments(Form::Test, input)?;
                let mut result = Encoder::new();
                let failed = self.test(&arguments).encode_in(self.version, &mut result);
                self.answer(&arguments.lock, TestRes, result);
                failed
            }
            LockMsg => self.message(self.arguments(Form::Lock, input)?, Self::lock_by_message, LockRes),
            CancelMsg => self.message(self.arguments(Form::Cancel, input)?, Self::cancel, CancelRes),
            UnlockMsg => self.message(self.arguments(Form::Unlock, input)?, Self::unlock, UnlockRes),
            // A client's part: this server waits for nobody's lock.
            Granted => {
                let arguments = self.arguments(Form::Test, input)?;
                self.put(&LockResult { cookie: arguments.cookie, status: Status::Denied }, out)
            }
            GrantedMsg => {
                self.arguments(Form::Test, input)?;
                true
            }
            TestRes | LockRes | CancelRes | UnlockRes => false,
            GrantedRes => {
                let LockResult { cookie, status } = LockResult::decode(input)?;
                self.granted(cookie, status);
                false
            }
            Share | Unshare => {
                let arguments = ShareArguments::decode(input)?;
                let status =
                    if procedure == Share { self.share(&arguments) } else { self.unshare(&arguments) };
                let status = status.in_version(self.version);
                ShareResult { cookie: arguments.cookie, status, sequence: 0 }.encode(out);
                status != Status::Granted
            }
            FreeAll => {
                self.free_all(&ehpc_proto::nlm::FreeAll::decode(input)?);
                false
            }
        };
        Ok(failed)
    }

    fn arguments<'a>(&self, form: Form, input: &mut Decoder<'a>) -> Result<LockArguments<'a>, DecodeError> {
        LockArguments::decode(form, Width::of_version(self.version), input)
    }

    fn result<'a>(
        &self,
        arguments: LockArguments<'a>,
        work: impl Fn(&Self, &LockArguments<'a>) -> Status,
        out: &mut Encoder,
    ) -> bool {
        let status = work(self, &arguments);
        self.put(&LockResult { cookie: arguments.cookie, status }, out)
    }

    fn put(&self, result: &LockResult<'_>, out: &mut Encoder) -> bool {
        let status = result.status.in_version(self.version);
        LockResult { cookie: result.cookie, status }.encode(out);
        !matches!(status, Status::Granted | Status::Blocked)
    }

    /// Answers by a call of `procedure` instead of a result.
    fn message<'a>(
        &self,
        arguments: LockArguments<'a>,
        work: impl Fn(&Self, &LockArguments<'a>) -> Status,
        procedure: Procedure,
    ) -> bool {
        let lock = arguments.lock.clone();
        let mut result = Encoder::new();
        let failed = self.result(arguments, work, &mut result);
        self.answer(&lock, procedure, result);
        failed
    }

    fn answer(&self, lock: &Lock<'_>, procedure: Procedure, result: Encoder) {
        let client = self.client(lock.caller);
        self.service.answer_message(client, (self.version, procedure), result.finish());
    }

    fn client(&self, name: &[u8]) -> Arc<Client> {
        Arc::new(Client { address: self.from, name: name.into() })
    }

    fn owner(&self, lock: &Lock<'_>) -> Arc<Owner> {
        Arc::new(Owner { client: self.client(lock.caller), svid: lock.svid, handle: lock.owner.into() })
    }

    fn request(&self, arguments: &LockArguments<'_>) -> Result<Request, Status> {
        let lock = &arguments.lock;
        let range = Range::new(lock.offset, lock.length).ok_or(Status::TooBig)?;
        let LockArguments { exclusive, state, .. } = *arguments;
        Ok(Request { owner: self.owner(lock), range, exclusive, state })
    }

    fn test<'a>(&self, arguments: &LockArguments<'a>) -> Tested<'a> {
        let cookie = arguments.cookie;
        if self.service.in_grace() {
            return Tested { cookie, status: Status::DeniedGracePeriod, holder: None };
        }
        let found = self
            .request(arguments)
            .and_then(|request| Ok((self.files.lockable(arguments.lock.file)?, request)));
        let (file, request) = match found {
            Ok(found) => found,
            // Without a holder to name, "denied" cannot be said.
            Err(Status::Denied) => return Tested { cookie, status: Status::Failed, holder: None },
            Err(status) => return Tested { cookie, status, holder: None },
        };
        let table = self.service.table.lock();
        match table.test(&file, &request) {
            None => Tested { cookie, status: Status::Granted, holder: None },
            Some(held) => Tested { cookie, status: Status::Denied, holder: Some(held.clone()) },
        }
    }

    fn lock(&self, arguments: &LockArguments<'_>) -> Status {
        self.try_lock(arguments, true, false).unwrap_or_else(|status| status)
    }

    fn lock_by_message(&self, arguments: &LockArguments<'_>) -> Status {
        self.try_lock(arguments, true, true).unwrap_or_else(|status| status)
    }

    /// For clients without a status monitor: they say FREE_ALL themselves.
    fn lock_unmonitored(&self, arguments: &LockArguments<'_>) -> Status {
        self.try_lock(arguments, false, false).unwrap_or_else(|status| status)
    }

    fn try_lock(
        &self,
        arguments: &LockArguments<'_>,
        monitored: bool,
        message: bool,
    ) -> Result<Status, Status> {
        self.timely(arguments.reclaim)?;
        let request = self.request(arguments)?;
        let file = self.files.lockable(arguments.lock.file)?;
        let client = Arc::clone(&request.owner.client);
        if monitored {
            self.remember(&client)?;
        }
        let callback = arguments.block.then(|| Callback {
            file: arguments.lock.file.into(),
            version: self.version,
            message,
        });
        let mut table = self.service.table.lock();
        let answer = table.lock(&file, request, callback);
        self.service.tell_granted(&mut table);
        if monitored && matches!(answer, Answer::Granted | Answer::Blocked) {
            // It may have been forgotten as idle just before.
            self.remember(&client)?;
        }
        Ok(status(answer))
    }

    /// In the grace period only what was held before is granted, and after it nothing is taken back.
    fn timely(&self, reclaim: bool) -> Result<(), Status> {
        if self.service.in_grace() == reclaim { Ok(()) } else { Err(Status::DeniedGracePeriod) }
    }

    fn remember(&self, client: &Arc<Client>) -> Result<(), Status> {
        self.service.monitor.remember(client).map_err(|error| {
            tracing::error!(client = %client.address, %error, "a client's lock is refused: it cannot be remembered");
            Status::DeniedNoLocks
        })
    }

    fn cancel(&self, arguments: &LockArguments<'_>) -> Status {
        let found =
            self.request(arguments).and_then(|request| Ok((self.files.any(arguments.lock.file)?, request)));
        let (file, request) = match found {
            Ok(found) => found,
            Err(status) => return status,
        };
        let mut table = self.service.table.lock();
        let cancelled = table.cancel(&file, &request);
        self.service.tell_granted(&mut table);
        if cancelled { Status::Granted } else { Status::Denied }
    }

    /// Never refused: a client cannot do anything about a lock that it cannot give back.
    fn unlock(&self, arguments: &LockArguments<'_>) -> Status {
        let lock = &arguments.lock;
        // A range that no lock can have holds nothing that could be given back.
        if let (Ok(file), Some(range)) = (self.files.any(lock.file), Range::new(lock.offset, lock.length)) {
            let mut table = self.service.table.lock();
            table.unlock(&file, &self.owner(lock), range);
            self.service.tell_granted(&mut table);
        }
        Status::Granted
    }

    /// GRANTED_RES: the answer to a callback that was sent as a message.
    fn granted(&self, cookie: &[u8], status: Status) {
        let Ok(ticket) = cookie.try_into().map(u64::from_be_bytes) else { return };
        let mine =
            self.service.table.lock().client_of(ticket).is_some_and(|client| client.address == self.from);
        match status {
            _ if !mine => {}
            Status::Granted => self.service.acknowledged(ticket),
            Status::DeniedGracePeriod | Status::Blocked => {}
            _ => self.service.refused(ticket),
        }
    }

    fn share(&self, arguments: &ShareArguments<'_>) -> Status {
        let shared = || {
            self.timely(arguments.reclaim)?;
            let file = self.files.lockable(arguments.file)?;
            let client = self.client(arguments.caller);
            self.remember(&client)?;
            let modes = (arguments.deny, arguments.access);
            let mut table = self.service.table.lock();
            let answer = table.share(&file, (&client, arguments.owner), modes, 0);
            self.remember(&client)?;
            Ok(status(answer))
        };
        shared().unwrap_or_else(|status: Status| status)
    }

    fn unshare(&self, arguments: &ShareArguments<'_>) -> Status {
        if let Ok(file) = self.files.any(arguments.file) {
            let client = self.client(arguments.caller);
            self.service.table.lock().unshare(&file, &client, arguments.owner);
        }
        Status::Granted
    }

    /// A client without a status monitor has restarted.
    fn free_all(&self, arguments: &FreeAll<'_>) {
        let mut table = self.service.table.lock();
        table.release_clients(&[self.client(arguments.caller)], 0);
        self.service.tell_granted(&mut table);
    }
}

fn status(answer: Answer) -> Status {
    match answer {
        Answer::Granted => Status::Granted,
        Answer::Denied => Status::Denied,
        Answer::Blocked => Status::Blocked,
        Answer::NoLocks => Status::DeniedNoLocks,
        Answer::Deadlock => Status::Deadlock,
    }
}

/// The result of TEST, with a holder of its own.
struct Tested<'a> {
    cookie: &'a [u8],
    status: Status,
    holder: Option<Held>,
}

impl Tested<'_> {
    /// Writes it; true if it is a refusal.
    fn encode_in(&self, version: u32, out: &mut Encoder) -> bool {
        let status = self.status.in_version(version);
        let holder = self.holder.as_ref().map(|held| Holder {
            exclusive: held.exclusive,
            svid: held.owner.svid,
            owner: &held.owner.handle,
            offset: held.range.first,
            length: held.range.length(),
        });
        TestResult { cookie: self.cookie, status, holder }.encode(version, out);
        status != Status::Granted
    }
}
