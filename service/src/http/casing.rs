//! The two spellings of a field's name, and which route family speaks which.
//!
//! The house unites sources that disagree: `/api/admin` and `/api/payments` speak lowerCamelCase, everything else
//! snake_case. Both are understood everywhere; only what a server itself says follows the family.

use upbridge_proto::schema::{Field, Kind, Many, Message, MessageId, Schema, Shape};

/// How names are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Casing {
    /// `month_year`
    Snake,
    /// `monthYear`
    Camel,
}

impl Casing {
    /// The spelling of the route family that `path` belongs to.
    pub fn of(path: &str) -> Casing {
        let within =
            |family| path.strip_prefix(family).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'));
        if within("/api/admin") || within("/api/payments") { Casing::Camel } else { Casing::Snake }
    }

    /// The field's name in this spelling.
    pub fn name(self, field: &Field) -> &str {
        match self {
            Casing::Snake => &field.name,
            Casing::Camel => &field.json_name,
        }
    }

    /// Spells the path of a field of `message`, such as `features[2].monthly_limit`. Keys of maps and of free-form
    /// JSON are the caller's own words and stay as they are, and so does a name the contract does not know.
    pub fn path(self, message: MessageId, path: &str) -> String {
        let schema = Schema::get();
        let mut inside: Option<&Message> = Some(&schema.messages[message]);
        let mut out = String::with_capacity(path.len());
        for segment in path.split('.') {
            if !out.is_empty() {
                out.push('.');
            }
            let (name, index) = segment.split_at(segment.find('[').unwrap_or(segment.len()));
            let field = inside.and_then(|message| message.field_by_json(name)).map(|(_, field)| field);
            out.push_str(field.map_or(name, |field| self.name(field)));
            out.push_str(index);
            inside = match field.map(|field| (field.cardinality, field.kind)) {
                Some((Many::One | Many::List, Kind::Message(id))) => Some(&schema.messages[id]),
                _ => None,
            };
            inside = inside.filter(|message| message.shape == Shape::Object);
        }
        out
    }

    /// Spells the fields of `message` that a sentence about a request names.
    pub fn sentence(self, message: MessageId, text: &str) -> String {
        let message = &Schema::get().messages[message];
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let spell = |word: &str| {
            // A name of one word is spelled alike, and may be a word of the language.
            let field = message.field_by_json(word).filter(|_| word.contains('_'));
            field.map_or(word.to_owned(), |(_, field)| self.name(field).to_owned())
        };
        text.split_inclusive(|letter| !is_part(letter))
            .map(|piece| {
                let word = piece.trim_end_matches(|letter| !is_part(letter));
                spell(word) + &piece[word.len()..]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_of_a_path_decides_the_spelling() {
        assert_eq!(Casing::of("/api/admin/users"), Casing::Camel);
        assert_eq!(Casing::of("/api/payments"), Casing::Camel);
        assert_eq!(Casing::of("/api/administer"), Casing::Snake);
        assert_eq!(Casing::of("/api/v1/client/auth/me"), Casing::Snake);
        assert_eq!(Casing::of("/api/devops/x"), Casing::Snake);
    }

    #[test]
    fn a_sentence_is_respelled_where_it_names_fields() {
        let logs = Schema::get().message("upbridge.v1.ListIntegrationLogsRequest").expect("known");
        let said = "start_date must not be after end_date, (end_date) nor at no_such_field or page\u{e9}";
        let spelled = "startDate must not be after endDate, (endDate) nor at no_such_field or page\u{e9}";
        assert_eq!(Casing::Camel.sentence(logs, said), spelled);
        assert_eq!(Casing::Snake.sentence(logs, said), said);
        assert_eq!(Casing::Camel.sentence(logs, ""), "");
    }

    #[test]
    fn a_path_is_respelled_except_for_the_callers_own_words() {
        let id = |name: &str| Schema::get().message(name).expect("known");
        let plan = id("upbridge.v1.CreatePlanRequest");
        assert_eq!(Casing::Camel.path(plan, "features[2].monthly_limit"), "features[2].monthlyLimit");
        assert_eq!(Casing::Camel.path(plan, "no_such_field.monthly_limit"), "no_such_field.monthly_limit");
        let usage = id("upbridge.v1.RecordUsageRequest");
        assert_eq!(Casing::Camel.path(usage, "usage_data.metadata.month_year"), "usageData.metadata.month_year");
        assert_eq!(Casing::Snake.path(usage, "usageData.monthYear"), "usage_data.month_year");
    }
}
