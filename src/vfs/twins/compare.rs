//! One step on both sides, and whether they answered alike.

use super::{Act, Guard, Step, Twins};
use crate::host::ObjectKey;
use crate::vfs::{Attributes, Caller, Mutation, Node, Vfs, VfsError, Wcc};
use ehpc_proto::replication::{Kind, Timestamp};
use std::collections::BTreeMap;
use std::fmt::Debug;

type Checked = Result<(), String>;
/// A listing: names, with the kinds that are told.
type Names = BTreeMap<Vec<u8>, Option<Kind>>;

/// An object on one side.
#[derive(Clone, Copy)]
struct Side<'a> {
    vfs: &'a dyn Vfs,
    caller: &'a Caller,
    object: &'a ObjectKey,
    other: &'a ObjectKey,
}

impl Twins {
    /// Does a step on both sides. Steps on objects that are not known (any more, in a shrunk sequence) do nothing.
    pub(super) fn step(&mut self, step: &Step) -> Checked {
        let (Some(object), Some(other)) = (self.keys(step.object), self.keys(step.other)) else {
            return Ok(());
        };
        let checked = self.do_step(step, &object, &other);
        checked.map_err(|difference| format!("{difference}\nin {step:?}"))
    }

    fn do_step(
        &mut self,
        step: &Step,
        object: &(ObjectKey, ObjectKey),
        other: &(ObjectKey, ObjectKey),
    ) -> Checked {
        let caller = self.callers[step.caller].clone();
        let subject = Side { vfs: &*self.stage.subject, caller: &caller, object: &object.0, other: &other.0 };
        let model = Side { vfs: &*self.stage.model, caller: &caller, object: &object.1, other: &other.1 };
        let made = match &step.act {
            Act::Create(..) | Act::Mkdir(..) | Act::Symlink(..) | Act::Mknod(..) => {
                let (one, two) = (subject.make(&step.act), model.make(&step.act));
                if one.result.is_ok() && (one.wcc.before.is_none() || one.wcc.after.is_none()) {
                    return Err("success without wcc data".to_owned());
                }
                self.same_wcc(&one, &two)?;
                Some((one.result, two.result))
            }
            Act::Lookup(_) | Act::Parent => Some((subject.find(&step.act), model.find(&step.act))),
            act => {
                self.same_change(act, subject, model)?;
                None
            }
        };
        if let Some((one, two)) = made {
            self.same_found(step.number, one, two)?;
        }
        let now = |vfs: &dyn Vfs, key| vfs.getattr(&caller, key).map(comparable);
        let (one, two) = (now(&*self.stage.subject, &object.0), now(&*self.stage.model, &object.1));
        same("attributes afterwards", one, two)?;
        let acls = |vfs: &dyn Vfs, key| vfs.acls(&caller, key).map(|(acls, found)| (acls, comparable(found)));
        let (one, two) = (acls(&*self.stage.subject, &object.0), acls(&*self.stage.model, &object.1));
        same("ACLs afterwards", one, two)
    }

    /// Operations that return no object.
    fn same_change(&self, act: &Act, subject: Side<'_>, model: Side<'_>) -> Checked {
        let both = |call: &dyn Fn(Side<'_>) -> Mutation<()>| {
            let (one, two) = (call(subject), call(model));
            self.same_wcc(&one, &two)?;
            same("result", one.result, two.result)
        };
        match act {
            Act::Remove(name) => both(&|side| side.vfs.remove(side.caller, side.object, name)),
            Act::Rmdir(name) => both(&|side| side.vfs.rmdir(side.caller, side.object, name)),
            Act::Link(name) => both(&|side| side.vfs.link(side.caller, side.object, side.other, name).0),
            Act::Rename(name, new) => {
                let call =
                    |side: Side<'_>| side.vfs.rename(side.caller, (side.object, name), (side.other, new));
                let (one, two) = (call(subject), call(model));
                self.same_after("old directory", &one.from, &two.from)?;
                self.same_after("new directory", &one.to, &two.to)?;
                same("rename", one.result, two.result)
            }
            Act::Setattr(set, guard) => {
                let call =
                    |side: Side<'_>| side.vfs.setattr(side.caller, side.object, set, side.guard(*guard));
                let (one, two) = (call(subject), call(model));
                self.same_after("setattr", &one.wcc, &two.wcc)?;
                // Several attributes are several system calls: the first may succeed, the second not.
                same("setattr", one.result, two.result)
            }
            Act::Write { offset, len, fill, stable } => {
                let data = vec![*fill; *len];
                let write =
                    |side: Side<'_>| side.vfs.write(side.caller, side.object, *offset, &data, *stable);
                let (one, two) = (write(subject), write(model));
                self.same_after("write", &one.wcc, &two.wcc)?;
                same("write", one.result, two.result)?;
                both(&|side| side.vfs.commit(side.caller, side.object, 0, 0))
            }
            Act::Read { offset, count } => {
                same("read", subject.read(*offset, *count), model.read(*offset, *count))
            }
            Act::Access => {
                let call =
                    |side: Side<'_>| side.vfs.access(side.caller, side.object, 0x3f).map(|(bits, _)| bits);
                same("access", call(subject), call(model))
            }
            Act::Readlink => {
                let call = |side: Side<'_>| side.vfs.readlink(side.caller, side.object).0;
                same("readlink", call(subject), call(model))
            }
            Act::SetAcls(set) => both(&|side| side.vfs.set_acls(side.caller, side.object, set)),
            Act::Readdir { plus } => same("readdir", subject.names(*plus), model.names(*plus)),
            _ => Ok(()),
        }
    }

    /// A failure changes nothing, and through NFS both tell the same of what they worked on.
    fn same_wcc<T>(&self, one: &Mutation<T>, two: &Mutation<T>) -> Checked {
        if let (Some(before), Some(after), true) = (one.wcc.before, one.wcc.after, one.result.is_err()) {
            same("a failure changed it", before, (after.size, after.mtime, after.ctime))?;
        }
        self.same_after("wcc", &one.wcc, &two.wcc)
    }

    fn same_after(&self, what: &str, one: &Wcc, two: &Wcc) -> Checked {
        if !self.stage.wire {
            return Ok(());
        }
        same(what, one.after.map(comparable), two.after.map(comparable))
    }

    fn same_found(
        &mut self,
        number: u32,
        one: Result<Node, VfsError>,
        two: Result<Node, VfsError>,
    ) -> Checked {
        let view = |result: &Result<Node, VfsError>| {
            result.as_ref().map(|node| node.attributes.map(comparable)).map_err(|error| *error)
        };
        same("node", view(&one), view(&two))?;
        let (Ok(one), Ok(two)) = (one, two) else { return Ok(()) };
        let met = self.known.iter().find(|(_, here, there)| *here == one.key || *there == two.key);
        match met {
            Some((_, here, there)) => same("identity", (here, there), (&one.key, &two.key)),
            None => {
                self.known.push((number, one.key, two.key));
                Ok(())
            }
        }
    }

    /// Both trees: names, attributes, content, hard links. The number of entries.
    pub(super) fn trees_are_equal(&self) -> Result<usize, String> {
        let one = tree(&*self.stage.subject, &self.callers[0]);
        let two = tree(&*self.stage.model, &self.callers[0]);
        for path in one.keys().chain(two.keys()) {
            let what = format!("at the end, {:?}", String::from_utf8_lossy(path));
            same(&what, one.get(path), two.get(path))?;
        }
        Ok(one.len())
    }
}

impl Side<'_> {
    fn make(&self, act: &Act) -> Mutation<Node> {
        let Side { vfs, caller, object, .. } = *self;
        match act {
            Act::Create(name, how) => vfs.create(caller, object, name, *how),
            Act::Mkdir(name, set) => vfs.mkdir(caller, object, name, set),
            Act::Symlink(name, target, set) => vfs.symlink(caller, object, name, target, set),
            Act::Mknod(name, kind, set) => vfs.mknod(caller, object, name, *kind, (1, 3), set),
            other => panic!("{other:?} makes nothing"),
        }
    }

    fn find(&self, act: &Act) -> Result<Node, VfsError> {
        match act {
            Act::Lookup(name) => self.vfs.lookup(self.caller, self.object, name).0,
            _ => self.vfs.parent(self.caller, self.object).0,
        }
    }

    fn guard(&self, guard: Guard) -> Option<Timestamp> {
        match guard {
            Guard::Absent => None,
            Guard::Right => self.vfs.getattr(self.caller, self.object).ok().map(|now| now.ctime),
            Guard::Wrong => Some(Timestamp { seconds: 1, nanos: 1 }),
        }
    }

    fn read(&self, offset: u64, count: u32) -> (Result<(usize, bool), VfsError>, Vec<u8>) {
        let mut bytes = b"before".to_vec();
        let done = self.vfs.read(self.caller, self.object, offset, count, &mut bytes);
        (done.map(|done| (done.bytes, done.eof)), bytes)
    }

    /// Names with the kinds that are told; a name that comes twice ends the listing.
    fn names(&self, plus: bool) -> Result<(bool, Names), VfsError> {
        let mut names = BTreeMap::new();
        let end = self.vfs.readdir(self.caller, self.object, 0, plus, &mut |entry| {
            let known = entry.node.and_then(|node| node.attributes).map(|found| found.kind);
            names.insert(entry.name.to_vec(), known).is_none()
        })?;
        Ok((end, names))
    }
}

fn same<T: PartialEq + Debug>(what: &str, subject: T, model: T) -> Checked {
    if subject == model {
        return Ok(());
    }
    Err(format!("{what}:\nsubject: {subject:?}\n  model: {model:?}"))
}

/// What the model and a real file system must agree on.
fn comparable(a: Attributes) -> (Kind, u16, u32, u32, u32, u64, (u32, u32)) {
    let (nlink, size) = if a.kind == Kind::Directory { (0, 0) } else { (a.nlink, a.size) };
    (a.kind, a.mode, nlink, a.uid, a.gid, size, a.rdev)
}

fn tree(vfs: &dyn Vfs, root: &Caller) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut numbers: Vec<ObjectKey> = Vec::new();
    let mut queue = vec![(Vec::new(), vfs.root())];
    while let Some((path, key)) = queue.pop() {
        let mut below = Vec::new();
        vfs.readdir(root, &key, 0, true, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                let path = [path.as_slice(), b"/", entry.name].concat();
                below.push((path, entry.node.expect("a node").clone()));
            }
            true
        })
        .expect("root may list");
        below.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, node) in below {
            let attributes = node.attributes.expect("attributes");
            let content = match attributes.kind {
                Kind::Directory => {
                    queue.push((path.clone(), node.key.clone()));
                    String::new()
                }
                Kind::File => content(vfs, root, &node.key),
                Kind::Symlink => format!("{:?}", vfs.readlink(root, &node.key).0),
                _ => String::new(),
            };
            // Hard links: the same number again.
            let number = numbers.iter().position(|key| *key == node.key).unwrap_or_else(|| {
                numbers.push(node.key.clone());
                numbers.len() - 1
            });
            let acls = vfs.acls(root, &node.key).map(|(acls, _)| acls);
            found.insert(path, format!("{number} {:?} {acls:?} {content}", comparable(attributes)));
        }
    }
    found
}

/// The places of a file where something may have been written.
fn content(vfs: &dyn Vfs, root: &Caller, key: &ObjectKey) -> String {
    let mut bytes = Vec::new();
    for place in [0, (4 << 30) - 4096, 1 << 40] {
        vfs.read(root, key, place, 20_000, &mut bytes).expect("root may read");
    }
    let digest = blake3::hash(&bytes);
    let shown = bytes.iter().position(|byte| *byte != 0).map(|at| (at, bytes[at]));
    format!("{} bytes, first at {shown:?}, {digest}", bytes.len())
}
