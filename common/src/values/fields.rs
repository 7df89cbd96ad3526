//! Finds the members of a JSON object that are wanted, without building anything of the others.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of one JSON object that are wanted by name, and where each one's value is in the text that was read
/// last. Made once and used for every object of its kind.
#[derive(Debug)]
pub(super) struct Fields {
    names: Vec<String>,
    by_name: HashMap<String, usize>,
    /// Which field the n-th member of the object before was. Producers write their members in one order, so a
    /// comparison with one name nearly always saves the look-up.
    order: Vec<usize>,
    /// Start and end of each field's value.
    found: Vec<Option<(usize, usize)>>,
    /// A field that was there twice.
    twice: Option<usize>,
}

/// Why a text is not an object whose members can be used.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is some other JSON value, or none at all.
    NotAnObject,
    /// It is not JSON.
    Broken(serde_json::Error),
    /// It is JSON, and then there is something more.
    Trailing(serde_json::Error),
    /// This field is there twice.
    Twice(usize),
}

impl Fields {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<String> = names.into_iter().collect();
        let by_name = names.iter().cloned().enumerate().map(|(field, name)| (name, field)).collect();
        Self { order: (0..names.len()).collect(), found: vec![None; names.len()], twice: None, names, by_name }
    }

    pub(super) fn name(&self, field: usize) -> &str {
        &self.names[field]
    }

    /// Finds the fields in `text`, which must be one JSON object. The whole of it is checked, not only what is wanted.
    pub(super) fn read(&mut self, text: &str) -> Result<(), Unreadable> {
        self.found.fill(None);
        self.twice = None;
        if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
            return Err(Unreadable::NotAnObject);
        }
        let mut json = serde_json::Deserializer::from_str(text);
        json.deserialize_map(Members { fields: self, text }).map_err(Unreadable::Broken)?;
        json.end().map_err(Unreadable::Trailing)?;
        match self.twice {
            Some(field) => Err(Unreadable::Twice(field)),
            None => Ok(()),
        }
    }

    /// The JSON text of a field's value in `text`, which must be what was read last; `None` when it is missing.
    pub(super) fn value<'t>(&self, field: usize, text: &'t str) -> Option<&'t str> {
        self.found[field].map(|(start, end)| &text[start..end])
    }

    /// Which field the member `name` is, `position` counting the members of its object.
    fn field(&mut self, position: usize, name: &str) -> Option<usize> {
        if let Some(&expected) = self.order.get(position)
            && self.names[expected] == name
        {
            return Some(expected);
        }
        let field = *self.by_name.get(name)?;
        if let Some(expected) = self.order.get_mut(position) {
            *expected = field;
        } else if position < 4 * self.names.len() {
            // Unknown members push the wanted ones back; the bound keeps one strange object from growing this.
            self.order.resize(position + 1, field);
        }
        Some(field)
    }
}

struct Members<'f, 't> {
    fields: &'f mut Fields,
    text: &'t str,
}

impl<'de> Visitor<'de> for Members<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { fields, text } = self;
        let mut position = 0;
        while let Some(field) = members.next_key_seed(Name { fields: &mut *fields, position })? {
            position += 1;
            let Some(field) = field else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = members.next_value::<&RawValue>()?.get();
            let start = value.as_ptr().addr() - text.as_ptr().addr();
            if fields.found[field].replace((start, start + value.len())).is_some() {
                fields.twice.get_or_insert(field);
            }
        }
        Ok(())
    }
}

/// Reads a member's name and gives its field.
struct Name<'f> {
    fields: &'f mut Fields,
    position: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.fields.field(self.position, name))
    }
}

/// Gives each element of a JSON array, as JSON text, to `element`, until one is refused.
pub(super) fn elements<W>(text: &str, element: impl FnMut(usize, &str) -> Result<(), W>) -> Result<(), Option<W>> {
    let mut wrong = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_seq(Elements { element, wrong: &mut wrong });
    if wrong.is_none() && read.and_then(|()| json.end()).is_ok() { Ok(()) } else { Err(wrong) }
}

struct Elements<'w, F, W> {
    element: F,
    wrong: &'w mut Option<W>,
}

impl<'de, F: FnMut(usize, &str) -> Result<(), W>, W> Visitor<'de> for Elements<'_, F, W> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(value) = elements.next_element::<&RawValue>()? {
            if let Err(wrong) = (self.element)(index, value.get()) {
                *self.wrong = Some(wrong);
                return Err(A::Error::custom("an element is wrong"));
            }
            index += 1;
        }
        Ok(())
    }
}

/// The content of a JSON string, `None` when `text` is no string (or one that has no UTF-8, as half a surrogate pair).
pub(super) fn string(text: &str) -> Option<Cow<'_, str>> {
    let content = text.strip_prefix('"')?.strip_suffix('"')?;
    if content.as_bytes().contains(&b'\\') {
        return serde_json::from_str::<String>(text).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(content))
}
