//! Section `userlist` (3.4 of the manual).

use super::model::{Password, User, Userlist};
use super::words::{Parsed, Words};
use crate::settings::{Problem, Site};

/// A list while it is being read.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(crate) struct UserlistDraft {
    pub(crate) list: Userlist,
    pub(crate) site: Site,
    pub(crate) groups: Vec<String>,
}

/// `userlist NAME`.
pub(crate) fn begin(words: &mut Words<'_>, known: &[UserlistDraft]) -> Parsed<UserlistDraft> {
    let name = words.demand("a name")?;
    if known.iter().any(|draft| draft.list.name == name) {
        return Err(words.problem_before(&format!("there is another userlist `{name}`"), "", "rename one"));
    }
    let site = words.site_before();
    words.end()?;
    Ok(UserlistDraft {
        list: Userlist { name: name.to_owned(), users: Vec::new() },
        site,
        groups: Vec::new(),
    })
}

/// A line of the section. Members that `group` names are kept as users without a password until their line comes;
/// [`complain`] finds those whose line never came.
pub(crate) fn line(draft: &mut UserlistDraft, words: &mut Words<'_>) -> Parsed<()> {
    let list = &mut draft.list;
    match words.demand("`user` or `group`")? {
        "group" => {
            let name = words.demand("a group's name")?.to_owned();
            draft.groups.push(name.clone());
            if words.take("users") {
                let members = words.demand("names with commas between")?;
                for member in members.split(',').filter(|member| !member.is_empty()) {
                    entry(list, member).groups.push(name.clone());
                }
            }
            words.end()
        }
        "user" => {
            let name = words.demand("a user's name")?.to_owned();
            let taken = list.users.iter().any(|user| user.name == name && !is_pending(user));
            if taken {
                return Err(words.problem_before(
                    &format!("user `{name}` stands here twice"),
                    "",
                    "remove one",
                ));
            }
            let (mut password, mut groups) = (None, Vec::new());
            while let Some(word) = words.next() {
                match word {
                    "password" => {
                        let hash = words.demand("a crypt(3) hash")?;
                        if let Err(what) = crate::proxy::expression::check_hash(hash) {
                            let next = "make one with `openssl passwd -6`";
                            return Err(words.problem_before(&what, "$1$, $5$, $6$, $2y$ or DES", next));
                        }
                        password = Some(Password::Crypt(hash.to_owned()));
                    }
                    "insecure-password" => {
                        password = Some(Password::Plain(words.demand("a password")?.to_owned()));
                    }
                    "groups" => groups
                        .extend(words.demand("names with commas between")?.split(',').map(str::to_owned)),
                    other => {
                        let expected = "password, insecure-password or groups";
                        return Err(words.problem_before(&format!("unknown word `{other}`"), expected, ""));
                    }
                }
            }
            let Some(password) = password else {
                let next = "add `password HASH` or `insecure-password TEXT`";
                return Err(words.problem_before(&format!("user `{name}` has no password"), "", next));
            };
            let user = entry(list, &name);
            user.password = password;
            user.groups.extend(groups);
            Ok(())
        }
        other => {
            let what = format!("unknown word `{other}` in a userlist");
            Err(words.problem_before(&what, "user or group", ""))
        }
    }
}

/// Members without a `user` line, groups without a `group` line.
pub(crate) fn complain(draft: &UserlistDraft) -> Vec<Problem> {
    let list = &draft.list;
    let problem = |what: String, next: &str| Problem {
        site: draft.site.clone(),
        what: format!("userlist `{}`: {what}", list.name),
        expected: String::new(),
        next: next.to_owned(),
    };
    let mut found = Vec::new();
    for user in &list.users {
        if is_pending(user) {
            let what = format!("a group names user `{}`, who has no line", user.name);
            found.push(problem(what, "add `user NAME password HASH`"));
        }
        for group in user.groups.iter().filter(|group| !draft.groups.contains(group)) {
            let what = format!("user `{}` is in group `{group}`, which has no line", user.name);
            found.push(problem(what, "add `group NAME`"));
        }
    }
    found
}

/// An empty hash matches no password.
fn is_pending(user: &User) -> bool {
    user.password == Password::Crypt(String::new())
}

fn entry<'l>(list: &'l mut Userlist, name: &str) -> &'l mut User {
    let at = list.users.iter().position(|user| user.name == name).unwrap_or_else(|| {
        let password = Password::Crypt(String::new());
        list.users.push(User { name: name.to_owned(), password, groups: Vec::new() });
        list.users.len() - 1
    });
    &mut list.users[at]
}
