//! The comments of the contract, by the full name of what they describe.

use std::collections::HashMap;

use prost::Message;
use prost_types::source_code_info::Location;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use upbridge_proto::Contract;

/// Comments by full name, such as `upbridge.v1.User.email`.
pub struct Comments(HashMap<String, String>);

impl Comments {
    /// The comments of every file of a contract.
    pub fn of(contract: &Contract) -> Comments {
        let files = FileDescriptorSet::decode(contract.descriptor_set).expect("the embedded set decodes").file;
        let mut comments = Comments(HashMap::new());
        for file in &files {
            Reader::new(file, &mut comments).file(file);
        }
        comments
    }

    /// The whole comment; empty when there is none.
    pub fn get(&self, full_name: &str) -> &str {
        self.0.get(full_name).map_or("", String::as_str)
    }

    /// The first sentence without its full stop, and what follows it.
    pub fn parts(&self, full_name: &str) -> (&str, &str) {
        let text = self.get(full_name);
        let end = text.match_indices('.').map(|(index, _)| index).find(|index| {
            let rest = &text[index + 1..];
            rest.is_empty() || rest.starts_with([' ', '\n'])
        });
        match end {
            Some(end) => (&text[..end], text[end + 1..].trim_start()),
            None => (text, ""),
        }
    }
}

struct Reader<'a> {
    locations: HashMap<&'a [i32], &'a Location>,
    comments: &'a mut Comments,
}

/// Numbers of the fields of a file descriptor that lead to what can carry a comment.
mod field {
    pub const FILE_MESSAGES: i32 = 4;
    pub const FILE_ENUMS: i32 = 5;
    pub const FILE_SERVICES: i32 = 6;
    pub const MESSAGE_FIELDS: i32 = 2;
    pub const MESSAGE_MESSAGES: i32 = 3;
    pub const MESSAGE_ENUMS: i32 = 4;
    pub const ENUM_VALUES: i32 = 2;
    pub const SERVICE_METHODS: i32 = 2;
}

impl<'a> Reader<'a> {
    fn new(file: &'a FileDescriptorProto, comments: &'a mut Comments) -> Reader<'a> {
        let locations = file.source_code_info.as_ref().map_or(&[][..], |info| &info.location);
        Reader { locations: locations.iter().map(|place| (&*place.path, place)).collect(), comments }
    }

    fn file(&mut self, file: &FileDescriptorProto) {
        let package = file.package();
        for (index, message) in numbered(&file.message_type) {
            self.message(package, &[field::FILE_MESSAGES, index], message);
        }
        for (index, enumeration) in numbered(&file.enum_type) {
            self.enumeration(package, &[field::FILE_ENUMS, index], enumeration);
        }
        for (index, service) in numbered(&file.service) {
            let (path, name) = ([field::FILE_SERVICES, index], format!("{package}.{}", service.name()));
            self.note(&path, &name);
            for (index, method) in numbered(&service.method) {
                self.note(&[path[0], path[1], field::SERVICE_METHODS, index], &format!("{name}.{}", method.name()));
            }
        }
    }

    fn message(&mut self, parent: &str, path: &[i32], message: &DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        self.note(path, &name);
        for (index, inside) in numbered(&message.field) {
            self.note(&[path, &[field::MESSAGE_FIELDS, index]].concat(), &format!("{name}.{}", inside.name()));
        }
        for (index, inside) in numbered(&message.nested_type) {
            self.message(&name, &[path, &[field::MESSAGE_MESSAGES, index]].concat(), inside);
        }
        for (index, inside) in numbered(&message.enum_type) {
            self.enumeration(&name, &[path, &[field::MESSAGE_ENUMS, index]].concat(), inside);
        }
    }

    fn enumeration(&mut self, parent: &str, path: &[i32], enumeration: &EnumDescriptorProto) {
        let name = format!("{parent}.{}", enumeration.name());
        self.note(path, &name);
        for (index, value) in numbered(&enumeration.value) {
            self.note(&[path, &[field::ENUM_VALUES, index]].concat(), &format!("{name}.{}", value.name()));
        }
    }

    fn note(&mut self, path: &[i32], name: &str) {
        let comment = self.locations.get(path).map_or("", |place| place.leading_comments());
        if !comment.trim().is_empty() {
            self.comments.0.insert(name.to_owned(), flowing(comment));
        }
    }
}

fn numbered<T>(list: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(list)
}

/// Lines of a paragraph join; an empty line stays between paragraphs.
fn flowing(comment: &str) -> String {
    let paragraphs = comment.split("\n\n").flat_map(|text| text.split("\n \n"));
    let joined = paragraphs.map(|text| text.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned());
    joined.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_flows_and_its_first_sentence_stands_out() {
        let comments = Comments::of(&upbridge_proto::UPBRIDGE);
        let (summary, rest) = comments.parts("upbridge.v1.UsageService.RecordUsage");
        assert_eq!(summary, "Records usage, exactly once");
        assert!(
            rest.starts_with("Safe to retry. A user records their own; a service names the user. Errors: "),
            "{rest}"
        );
        assert_eq!(comments.get("upbridge.v1.Role.ROLE_ADMIN"), "May do everything.");
        assert_eq!(comments.get("upbridge.v1.User.email"), "E-mail address in lower case.");
        assert_eq!(comments.parts("upbridge.v1.None"), ("", ""));
    }
}
