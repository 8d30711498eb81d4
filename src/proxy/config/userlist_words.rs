//! Section `userlist` (3.4 of the manual).

use super::model::{Password, User, Userlist};
use super::words::{Parsed, Words};

/// `userlist NAME`.
pub(crate) fn begin(words: &mut Words<'_>, known: &[Userlist]) -> Parsed<Userlist> {
    let name = words.expect("a name")?;
    if known.iter().any(|list| list.name == name) {
        return Err(words.problem_before(&format!("there is another userlist `{name}`"), "", "rename one"));
    }
    words.end()?;
    Ok(Userlist { name: name.to_owned(), users: Vec::new() })
}

/// A line of the section. Members that `group` names are kept as users without a password until their line comes;
/// [`complain`] finds those whose line never came.
pub(crate) fn line(list: &mut Userlist, words: &mut Words<'_>) -> Parsed<()> {
    match words.expect("`user` or `group`")? {
        "group" => {
            let name = words.expect("a group's name")?.to_owned();
            if words.take("users") {
                let members = words.expect("names with commas between")?;
                for member in members.split(',').filter(|member| !member.is_empty()) {
                    entry(list, member).groups.push(name.clone());
                }
            }
            words.end()
        }
        "user" => {
            let name = words.expect("a user's name")?.to_owned();
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
                        password = Some(Password::Crypt(words.expect("a crypt(3) hash")?.to_owned()))
                    }
                    "insecure-password" => {
                        password = Some(Password::Plain(words.expect("a password")?.to_owned()));
                    }
                    "groups" => groups
                        .extend(words.expect("names with commas between")?.split(',').map(str::to_owned)),
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

/// Users that groups name and no `user` line makes.
pub(crate) fn complain(list: &Userlist) -> Vec<String> {
    let pending = list.users.iter().filter(|user| is_pending(user));
    pending
        .map(|user| format!("userlist `{}`: a group names user `{}`, who has no line", list.name, user.name))
        .collect()
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
