//! Header fields of one message: an ordered list whose text lies in one buffer.

/// Place of a field in its list; valid until the next change of the list.
pub type FieldIndex = usize;

/// One field is one line of the text: `name: value` and CR LF.
#[derive(Clone, Copy, Debug)]
struct Item {
    start: u32,
    name_len: u32,
    /// Where the value ends; CR LF follow.
    end: u32,
}

/// Header fields in order of arrival. Names are kept in lower case (HAProxy sends them so, RFC 9110 section 5.1
/// makes case meaningless); values are bytes without surrounding white space. The text holds whole lines as they go
/// on the wire, so that a message that is passed on is written in a few big pieces. Removed text stays in the buffer
/// until [`Fields::clear`], so that changing a field never moves the others.
#[derive(Clone, Default, Debug)]
pub struct Fields {
    text: Vec<u8>,
    items: Vec<Item>,
}

impl Fields {
    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.items.clear();
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// No field at all.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of text held, live or removed: what a bound on a head's size compares with. A field costs its name, its
    /// value and 4 bytes.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    /// Appends a field; the name is lowered. The caller has checked both for forbidden bytes.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let item = self.append(name, value);
        self.items.push(item);
    }

    /// Appends a field from its line on the wire: `name: value` CR LF, with exactly one space after the colon and no
    /// other white space around the value. The same as [`Fields::push`], with one copy.
    pub(crate) fn push_line(&mut self, line: &[u8], name_len: usize) {
        let start = self.text.len();
        self.text.extend_from_slice(line);
        self.text[start..start + name_len].make_ascii_lowercase();
        self.items.push(item(start, name_len, self.text.len() - 2));
    }

    /// Fields in order: (name in lower case, value).
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.items.iter().map(|item| (self.name(item), self.value(item)))
    }

    /// Name and value at a place.
    pub fn at(&self, index: FieldIndex) -> Option<(&[u8], &[u8])> {
        self.items.get(index).map(|item| (self.name(item), self.value(item)))
    }

    /// Name and value of the field that was appended last.
    pub fn last(&self) -> Option<(&[u8], &[u8])> {
        self.items.last().map(|item| (self.name(item), self.value(item)))
    }

    /// The first value of `name` (lower case).
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.items.iter().find(|item| self.name(item) == name).map(|item| self.value(item))
    }

    /// All values of `name` (lower case), with their places.
    pub fn all<'s>(&'s self, name: &[u8]) -> impl DoubleEndedIterator<Item = (FieldIndex, &'s [u8])> {
        self.items
            .iter()
            .enumerate()
            .filter(move |(_, item)| self.name(item) == name)
            .map(|(index, item)| (index, self.value(item)))
    }

    /// Whether a field `name` (lower case) exists.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// Gives the field at `index` another value. Nothing happens when there is none.
    pub fn replace(&mut self, index: FieldIndex, value: &[u8]) {
        let Some(old) = self.items.get(index).copied() else { return };
        let start = self.text.len();
        let name = old.start as usize..(old.start + old.name_len) as usize;
        self.text.extend_from_within(name);
        self.finish(value);
        self.items[index] = item(start, old.name_len as usize, self.text.len() - 2);
    }

    /// Removes every field that `keep` does not want; how many went.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) -> usize {
        let before = self.items.len();
        let text = &self.text;
        self.items.retain(|item| keep(name_in(text, item), value_in(text, item)));
        before - self.items.len()
    }

    /// Removes the fields `name` (lower case); how many went.
    pub fn remove(&mut self, name: &[u8]) -> usize {
        self.retain(|known, _| known != name)
    }

    /// Removes the field at a place. Nothing happens when there is none.
    pub fn remove_at(&mut self, index: FieldIndex) {
        if index < self.items.len() {
            self.items.remove(index);
        }
    }

    /// Removes the field that was appended last.
    pub(crate) fn pop(&mut self) {
        self.items.pop();
    }

    /// Removes the fields `name` and appends one.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let lower = name.to_ascii_lowercase();
        self.remove(&lower);
        self.push(name, value);
    }

    /// Appends all fields to `out`, a line each, without the empty line that ends a head. Neighbours in the text go
    /// in one piece.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut items = self.items.iter();
        let Some(first) = items.next() else { return };
        let (mut from, mut to) = (first.start, first.end + 2);
        for item in items {
            if item.start != to {
                out.extend_from_slice(&self.text[from as usize..to as usize]);
                from = item.start;
            }
            to = item.end + 2;
        }
        out.extend_from_slice(&self.text[from as usize..to as usize]);
    }

    fn name(&self, item: &Item) -> &[u8] {
        name_in(&self.text, item)
    }

    fn value(&self, item: &Item) -> &[u8] {
        value_in(&self.text, item)
    }

    fn append(&mut self, name: &[u8], value: &[u8]) -> Item {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.text[start..].make_ascii_lowercase();
        self.finish(value);
        item(start, name.len(), self.text.len() - 2)
    }

    /// The rest of a line after its name.
    fn finish(&mut self, value: &[u8]) {
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
    }
}

fn name_in<'t>(text: &'t [u8], item: &Item) -> &'t [u8] {
    &text[item.start as usize..(item.start + item.name_len) as usize]
}

fn value_in<'t>(text: &'t [u8], item: &Item) -> &'t [u8] {
    &text[(item.start + item.name_len) as usize + 2..item.end as usize]
}

/// A head is bounded far below 4 GiB by its reader; a rule that appends is bounded by the rewrite reserve.
fn item(start: usize, name_len: usize, end: usize) -> Item {
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Item { start: narrow(start), name_len: narrow(name_len), end: narrow(end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &Fields) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn fields_keep_their_order_and_lose_their_case() {
        let mut fields = Fields::default();
        fields.push(b"Host", b"a");
        fields.push(b"X-One", b"1");
        fields.push(b"x-one", b"2");
        assert_eq!(fields.get(b"x-one"), Some(&b"1"[..]));
        assert_eq!(fields.all(b"x-one").count(), 2);
        fields.replace(1, b"longer");
        fields.set(b"HOST", b"b");
        let expected = [("x-one", "longer"), ("x-one", "2"), ("host", "b")];
        assert_eq!(list(&fields), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(fields.remove(b"x-one"), 2);
        fields.remove_at(0);
        fields.remove_at(0);
        assert!(fields.is_empty() && fields.at(0).is_none());
    }

    #[test]
    fn fields_are_written_in_order_whatever_was_changed() {
        let mut fields = Fields::default();
        fields.push_line(b"Host: a\r\n", 4);
        fields.push_line(b"B: \r\n", 1);
        fields.push_line(b"C: c c\r\n", 1);
        fields.push(b"D", b"d");
        let written = |fields: &Fields| {
            let mut out = Vec::new();
            fields.write_to(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(&fields), "host: a\r\nb: \r\nc: c c\r\nd: d\r\n");
        fields.replace(2, b"new");
        fields.remove(b"b");
        assert_eq!(written(&fields), "host: a\r\nc: new\r\nd: d\r\n");
        fields.clear();
        assert_eq!(written(&fields), "");
    }
}
