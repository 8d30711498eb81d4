//! Lines into sections: which section a line belongs to, which defaults it begins with, which handler reads it.

use super::bind_words;
use super::draft::{Context, Draft, Kind, Prefix, UnixBind};
use super::environment::Environment;
use super::model::Global;
use super::surroundings::Surroundings;
use super::userlist_words::{self, UserlistDraft};
use super::vocabulary::{self, Class, Handler, Places, REFUSED_SECTIONS, Row};
use super::words::{Line, Parsed, Words};
use crate::settings::problem::nearest;
use crate::settings::{Problem, Problems, Site};
use std::collections::BTreeMap;

/// Everything that was read, names not resolved.
#[derive(Debug, Default)]
pub(crate) struct Sections {
    pub(crate) global: Global,
    pub(crate) proxies: Vec<Draft>,
    pub(crate) userlists: Vec<UserlistDraft>,
    pub(crate) without_meaning: BTreeMap<String, usize>,
    pub(crate) warnings: Vec<String>,
    unix_bind: UnixBind,
    defaults: Vec<Draft>,
}

/// Where the reader is.
enum Current {
    Nothing,
    Global,
    Defaults(usize),
    Proxy(usize),
    Userlist(usize),
    /// A section that was refused as a whole.
    Refused,
}

/// Reads all lines; one problem a line at most.
pub(crate) fn read(
    lines: &[Line],
    surroundings: &Surroundings,
    environment: &Environment,
    problems: &mut Problems,
) -> Sections {
    let mut reader =
        Reader { sections: Sections::default(), current: Current::Nothing, surroundings, environment };
    let mut file = None;
    for line in lines {
        // A section ends with its file.
        if file.as_ref().is_some_and(|before| *before != line.file) {
            reader.current = Current::Nothing;
        }
        file = Some(line.file.clone());
        if let Err(problem) = reader.line(line) {
            problems.0.push(*problem);
        }
    }
    problems.0.extend(reader.sections.userlists.iter().flat_map(userlist_words::complain));
    reader.sections
}

struct Reader<'s> {
    sections: Sections,
    current: Current,
    surroundings: &'s Surroundings,
    environment: &'s Environment,
}

impl Reader<'_> {
    fn line(&mut self, line: &Line) -> Parsed<()> {
        let mut words = Words::new(line);
        let first = words.next().unwrap_or_default();
        if first.starts_with('.') {
            return self.message(first, &mut words);
        }
        if let Some((_, reason)) = REFUSED_SECTIONS.iter().find(|(name, _)| *name == first) {
            self.current = Current::Refused;
            let what = format!("section `{first}` is refused: {reason}");
            return Err(words.problem_before(&what, "", "remove the section"));
        }
        match first {
            "global" => {
                self.current = Current::Global;
                words.end()
            }
            "defaults" => self.defaults(&mut words),
            "frontend" => self.proxy(Kind::Frontend, line, &mut words),
            "backend" => self.proxy(Kind::Backend, line, &mut words),
            "listen" => self.proxy(Kind::Listen, line, &mut words),
            "userlist" => {
                self.current = Current::Refused;
                let list = userlist_words::begin(&mut words, &self.sections.userlists)?;
                self.sections.userlists.push(list);
                self.current = Current::Userlist(self.sections.userlists.len() - 1);
                Ok(())
            }
            _ => self.inside(line),
        }
    }

    /// `.notice`, `.warning`, `.diag`.
    fn message(&mut self, first: &str, words: &mut Words<'_>) -> Parsed<()> {
        let site = words.site_before();
        let text: Vec<&str> = words.rest().iter().map(|word| word.text.as_str()).collect();
        match first {
            ".warning" => self.sections.warnings.push(format!("{site}: {}", text.join(" "))),
            ".notice" | ".diag" => {}
            _ => {
                let known = [".if", ".elif", ".else", ".endif", ".notice", ".warning", ".alert", ".diag"];
                let next =
                    nearest(first, known).map_or(String::new(), |near| format!("did you mean `{near}`?"));
                return Err(words.problem_before(&format!("unknown directive `{first}`"), "", &next));
            }
        }
        Ok(())
    }

    fn defaults(&mut self, words: &mut Words<'_>) -> Parsed<()> {
        // Lines that follow a wrong head are still read, so that their problems are found too.
        let site = words.site_before();
        let mut draft = Draft::new(Kind::Defaults, "", site.clone());
        let head = self.defaults_head(&mut draft, words, site);
        self.sections.defaults.push(draft);
        self.current = Current::Defaults(self.sections.defaults.len() - 1);
        head
    }

    fn defaults_head(&mut self, draft: &mut Draft, words: &mut Words<'_>, site: Site) -> Parsed<()> {
        if words.peek().is_some_and(|word| word != "from") {
            let name = name(words)?;
            name.clone_into(&mut draft.name);
        }
        if words.take("from") {
            let from = self.named_defaults(words)?;
            let name = std::mem::take(&mut draft.name);
            *draft = self.sections.defaults[from].inherit(Kind::Defaults, &name, site);
        }
        words.end()
    }

    /// The defaults section that the next word names.
    fn named_defaults(&self, words: &mut Words<'_>) -> Parsed<usize> {
        let name = words.demand("the name of a defaults section")?;
        let mut same = self.sections.defaults.iter().enumerate().filter(|(_, draft)| draft.name == name);
        let found = same.next().map(|(at, _)| at);
        if let Some((_, other)) = same.next() {
            let what = format!("there are several defaults sections `{name}`, another at {}", other.site);
            return Err(words.problem_before(&what, "a name of its own", "rename one of them"));
        }
        found.ok_or_else(|| {
            let known =
                self.sections.defaults.iter().map(|draft| draft.name.as_str()).filter(|n| !n.is_empty());
            let next = match nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "it must stand above".to_owned(),
            };
            words.problem_before(&format!("there is no defaults section `{name}`"), "", &next)
        })
    }

    fn proxy(&mut self, kind: Kind, line: &Line, words: &mut Words<'_>) -> Parsed<()> {
        let site = words.site_before();
        let defaults = self.sections.defaults.len().checked_sub(1);
        let begin = |defaults: Option<usize>, name: &str, sections: &Sections| match defaults {
            Some(at) => sections.defaults[at].inherit(kind, name, site.clone()),
            None => Draft::new(kind, name, site.clone()),
        };
        let name = match name(words) {
            Ok(name) => name,
            Err(problem) => {
                let draft = begin(defaults, "", &self.sections);
                self.push(draft);
                return Err(problem);
            }
        };
        let from = match words.take("from") {
            true => Some(self.named_defaults(words)),
            false => None,
        };
        let defaults = from.as_ref().map_or(defaults, |from| from.as_ref().ok().copied());
        let draft = begin(defaults, name, &self.sections);
        let twice = self.same_name(&draft, words);
        self.push(draft);
        from.transpose()?;
        twice?;
        // `frontend NAME ADDRESS [words]` of HAProxy 1.5.
        if words.peek().is_some() && kind != Kind::Backend {
            let last = self.sections.proxies.len() - 1;
            return self.with_context(line, Prefix::None, |sections, context| {
                bind_words::bind(&mut sections.proxies[last], words, context)
            });
        }
        words.end()
    }

    fn push(&mut self, draft: Draft) {
        self.sections.proxies.push(draft);
        self.current = Current::Proxy(self.sections.proxies.len() - 1);
    }

    /// Two sections of one name are possible only as frontend and backend.
    fn same_name(&self, draft: &Draft, words: &Words<'_>) -> Parsed<()> {
        let meets = |other: &&Draft| {
            other.name == draft.name
                && ((other.kind.front() && draft.kind.front()) || (other.kind.back() && draft.kind.back()))
        };
        match self.sections.proxies.iter().find(meets) {
            None => Ok(()),
            Some(other) => {
                let what = format!(
                    "`{}` is the name of the {} at {} too",
                    draft.name,
                    other.kind.word(),
                    other.site
                );
                Err(words.problem_before(&what, "a name of its own", "rename one of them"))
            }
        }
    }

    fn with_context<T>(
        &mut self,
        line: &Line,
        prefix: Prefix,
        run: impl FnOnce(&mut Sections, &mut Context<'_>) -> Parsed<T>,
    ) -> Parsed<T> {
        let mut warnings = std::mem::take(&mut self.sections.warnings);
        let mut without_meaning = std::mem::take(&mut self.sections.without_meaning);
        let mut unix_bind = std::mem::take(&mut self.sections.unix_bind);
        let mut context = Context {
            line,
            prefix,
            surroundings: self.surroundings,
            environment: self.environment,
            bufsize: self.sections.global.tune.bufsize,
            unix_bind: &mut unix_bind,
            warnings: &mut warnings,
            without_meaning: &mut without_meaning,
        };
        let result = run(&mut self.sections, &mut context);
        self.sections.warnings = warnings;
        self.sections.without_meaning = without_meaning;
        self.sections.unix_bind = unix_bind;
        result
    }

    /// A line inside of a section.
    fn inside(&mut self, line: &Line) -> Parsed<()> {
        let mut words = Words::new(line);
        let (place, whole) = match self.current {
            Current::Refused => return Ok(()),
            Current::Nothing => {
                let first = words.next().unwrap_or_default();
                let known = ["global", "defaults", "frontend", "backend", "listen", "userlist"];
                let next = match nearest(first, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "begin with `global`, `defaults`, `frontend`, `backend` or `listen`".to_owned(),
                };
                let what = format!("`{first}` stands outside of every section");
                return Err(words.problem_before(&what, "a section", &next));
            }
            Current::Userlist(at) => {
                return userlist_words::line(&mut self.sections.userlists[at], &mut words);
            }
            Current::Global => (Places::GLOBAL, Places::GLOBAL),
            Current::Defaults(_) => (Places::DEFAULTS, Places::DEFAULTS | Places::FRONT | Places::BACK),
            Current::Proxy(at) => (
                match self.sections.proxies[at].kind {
                    Kind::Frontend => Places::FRONT,
                    Kind::Backend => Places::BACK,
                    Kind::Listen | Kind::Defaults => Places::FRONT | Places::BACK,
                },
                Places::DEFAULTS | Places::FRONT | Places::BACK,
            ),
        };
        let prefix = match words.peek() {
            Some("no") => Prefix::No,
            Some("default") => Prefix::Default,
            _ => Prefix::None,
        };
        if prefix != Prefix::None {
            words.next();
        }
        let first = words.demand("a word")?;
        let row =
            vocabulary::find(whole, first, words.peek()).ok_or_else(|| unknown(whole, first, &mut words))?;
        self.class(row, place, prefix, line, words)
    }

    fn class(
        &mut self,
        row: &Row,
        place: Places,
        prefix: Prefix,
        line: &Line,
        mut words: Words<'_>,
    ) -> Parsed<()> {
        if let Class::Refused(reason) = row.class {
            let what = format!("`{}` is refused: {reason}", row.word);
            return Err(words.problem_before(&what, "", "remove the line"));
        }
        if row.word.contains(' ') {
            words.next();
        }
        negatable(row, prefix, &words)?;
        if !row.places.meets(place) {
            return self.misplaced(row, &words);
        }
        let current = match self.current {
            Current::Defaults(at) => Some((true, at)),
            Current::Proxy(at) => Some((false, at)),
            _ => None,
        };
        self.with_context(line, prefix, |sections, context| {
            let handler = match row.class {
                Class::WithoutMeaning(_) | Class::Refused(_) => {
                    context.meaningless(row.word);
                    return Ok(());
                }
                Class::Honoured(handler) => handler,
            };
            let draft = match current {
                Some((true, at)) => sections.defaults.get_mut(at),
                Some((false, at)) => sections.proxies.get_mut(at),
                None => None,
            };
            match (handler, draft) {
                (Handler::Global(read), _) => read(&mut sections.global, &mut words, context)?,
                (Handler::Proxy(read), Some(draft)) => read(draft, &mut words, context)?,
                (Handler::Switch(which), Some(draft)) => *which(&mut draft.options) = prefix == Prefix::None,
                (Handler::Deferred, Some(draft)) => return defer(draft, line, row, &words),
                // Done while the lines were read.
                (Handler::Done, _) => return Ok(()),
                _ => return Err(words.problem_before(&format!("`{}` cannot stand here", row.word), "", "")),
            }
            words.end()
        })
    }

    /// A word of another section: HAProxy warns and goes on without it.
    fn misplaced(&mut self, row: &Row, words: &Words<'_>) -> Parsed<()> {
        let kind = match self.current {
            Current::Proxy(at) => self.sections.proxies[at].kind,
            _ => Kind::Defaults,
        };
        let what = format!("`{}` cannot stand in a section `{}`", row.word, kind.word());
        let hard = kind == Kind::Defaults || ["server", "use_backend"].contains(&row.word);
        if hard {
            return Err(words.problem_before(&what, "", "move it to a section where it has an effect"));
        }
        self.sections.warnings.push(format!("{}: {what}; it has no effect there", words.site_before()));
        Ok(())
    }
}

/// Whether `no` and `default` may stand before a word.
fn negatable(row: &Row, prefix: Prefix, words: &Words<'_>) -> Parsed<()> {
    const MORE: [&str; 14] = [
        "log",
        "option http-keep-alive",
        "option http-server-close",
        "option httpclose",
        "option forceclose",
        "option redispatch",
        "option contstats",
        "option splice-auto",
        "option splice-request",
        "option splice-response",
        "busy-polling",
        "set-dumpable",
        "strict-limits",
        "numa-cpu-mapping",
    ];
    let switch = matches!(row.class, Class::Honoured(Handler::Switch(_)));
    let meaningless_option = matches!(row.class, Class::WithoutMeaning(_)) && row.word.starts_with("option ");
    let allowed =
        switch || meaningless_option || row.word == "insecure-fork-wanted" || MORE.contains(&row.word);
    if prefix == Prefix::None || allowed {
        return Ok(());
    }
    let what = format!("`{}` cannot be negated", row.word);
    Err(words.problem_before(&what, "", "write the value that is wanted instead"))
}

fn defer(draft: &mut Draft, line: &Line, row: &Row, words: &Words<'_>) -> Parsed<()> {
    if draft.kind == Kind::Defaults && draft.name.is_empty() {
        let what = format!("`{}` stands in a defaults section without a name", row.word);
        let next = "give the section a name: `defaults NAME`";
        return Err(words.problem_before(&what, "a named defaults section", next));
    }
    draft.deferred.push(line.clone());
    Ok(())
}

/// A section's name.
fn name<'l>(words: &mut Words<'l>) -> Parsed<&'l str> {
    let name = words.demand("a name")?;
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.:".contains(*c))) {
        None => Ok(name),
        Some(wrong) => {
            let what = format!("the name `{name}` contains `{wrong}`");
            Err(words.problem_before(&what, "letters, digits, - _ . :", "use another name"))
        }
    }
}

/// A word that no table has at this place.
fn unknown(places: Places, first: &str, words: &mut Words<'_>) -> Box<Problem> {
    let second = words.peek();
    let group = vocabulary::is_group(places, first);
    let sections = ["global", "defaults", "frontend", "backend", "listen", "userlist"];
    let suggestion = vocabulary::suggest(places, first, second).or_else(|| nearest(first, sections));
    let next = match suggestion {
        Some(near) => format!("did you mean `{near}`?"),
        None => "the list of words is printed by -dKall".to_owned(),
    };
    match second {
        Some(second) if group => {
            words.next();
            words.problem_before(&format!("unknown word `{first} {second}`"), "", &next)
        }
        None if group => words.problem_before(&format!("`{first}` is not complete"), "another word", &next),
        _ => {
            let elsewhere = [Places::GLOBAL, Places::DEFAULTS | Places::FRONT | Places::BACK]
                .into_iter()
                .any(|other| vocabulary::find(other, first, second).is_some());
            let what = match elsewhere {
                true => format!("`{first}` cannot stand in this section"),
                false => format!("unknown word `{first}`"),
            };
            words.problem_before(&what, "", &next)
        }
    }
}
