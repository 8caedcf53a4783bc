//! Finds the rpc behind a verb and a path, in tables built from the contract's `google.api.http` bindings.
//!
//! Path variables are renamed by position before they enter the matcher, so two rpcs may call the variable at
//! one place differently. Anything the face could not serve is a panic while the table is built: a server that
//! starts has every binding of its contract.

use http::{Method, Uri};
use matchit::Router;
use percent_encoding::percent_decode_str;
use upbridge_proto::Contract;
use upbridge_proto::schema::{self, Binding, Kind, Many, Schema, Shape, path_variables};

use super::casing::Casing;
use super::error::Failure;

/// The verbs a binding may have, in the order `Allow` lists them.
const VERBS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// One binding of one rpc, with everything that can be known before a request comes.
#[derive(Debug)]
pub struct Endpoint {
    /// The rpc.
    pub method: &'static schema::Method,
    /// Its binding.
    pub binding: &'static Binding,
    /// Where the rpc is called.
    pub uri: Uri,
    /// How names are spelled in the answer.
    pub casing: Casing,
    /// Index of the request field each path variable fills, in the order of the path.
    pub variables: Vec<usize>,
    /// Index of the response field that is the data; `None` for the whole response.
    pub data: Option<usize>,
}

/// Every endpoint, findable.
#[derive(Debug, Default)]
pub struct Table {
    endpoints: Vec<Endpoint>,
    paths: [Router<usize>; VERBS.len()],
}

/// What is behind a verb and a path.
#[derive(Debug)]
pub enum Found<'a> {
    /// An endpoint, with the path's variables as they stand in the path.
    Endpoint(&'a Endpoint, Vec<String>),
    /// The path has other verbs: the value of `Allow`.
    Other(String),
    /// Nothing.
    Nothing,
}

impl Table {
    /// The table of all bindings of a contract, except those of rpcs whose callers stream.
    ///
    /// # Panics
    /// When two bindings share a verb and a path, or a binding asks for what the face does not do.
    pub fn of(contract: &'static Contract) -> Table {
        let mut table = Table::default();
        for method in contract.methods().iter().filter(|method| !method.client_streaming) {
            for binding in &method.bindings {
                table.insert(method, binding);
            }
        }
        table
    }

    fn insert(&mut self, method: &'static schema::Method, binding: &'static Binding) {
        let Binding { verb, template, .. } = binding;
        let place = format!("{verb} {template} of {}", method.path);
        let slot = VERBS.iter().position(|known| known.as_str() == verb).unwrap_or_else(|| panic!("{place}: the verb"));
        let endpoint = Endpoint {
            method,
            binding,
            uri: method.path.parse().expect("an rpc's path is a URI"),
            casing: Casing::of(template),
            variables: path_variables(template).map(|name| variable(method, name, &place)).collect(),
            data: binding.response_body.as_deref().map(|name| data_field(method, name, &place)),
        };
        self.endpoints.push(endpoint);
        let inserted = self.paths[slot].insert(positional(template), self.endpoints.len() - 1);
        inserted.unwrap_or_else(|error| panic!("{place} cannot be routed: {error}"));
    }

    /// What is behind `verb` and the still percent-encoded `path`. HEAD is served where GET is.
    pub fn find(&self, verb: &Method, path: &str) -> Found<'_> {
        let verb = if verb == Method::HEAD { &Method::GET } else { verb };
        let slot = VERBS.iter().position(|known| known == verb);
        if let Some(found) = slot.and_then(|slot| self.paths[slot].at(path).ok()) {
            let variables = found.params.iter().map(|(_, value)| value.to_owned()).collect();
            return Found::Endpoint(&self.endpoints[*found.value], variables);
        }
        let allowed = VERBS.iter().zip(&self.paths).filter(|(_, paths)| paths.at(path).is_ok());
        let allowed: Vec<&str> =
            allowed.map(|(verb, _)| if verb == Method::GET { "GET, HEAD" } else { verb.as_str() }).collect();
        if allowed.is_empty() { Found::Nothing } else { Found::Other(allowed.join(", ")) }
    }
}

impl Endpoint {
    /// Percent-decodes the path's variables and pairs each with the field it fills.
    pub fn decode(&self, raw: &[String]) -> Result<Vec<(usize, String)>, Failure> {
        let decoded = self.variables.iter().zip(raw).map(|(field, value)| {
            let text = percent_decode_str(value).decode_utf8().map_err(|_| {
                let field = &Schema::get().messages[self.method.input].fields[*field];
                Failure::malformed(format!("{} in the path must be valid UTF-8", self.casing.name(field)))
            })?;
            Ok((*field, text.into_owned()))
        });
        decoded.collect()
    }
}

/// `/a/{x}/b/{y}` → `/a/{p0}/b/{p1}`
fn positional(template: &str) -> String {
    let mut count = 0;
    let segments = template.split('/').map(|segment| {
        if !segment.starts_with('{') {
            return segment.to_owned();
        }
        count += 1;
        format!("{{p{}}}", count - 1)
    });
    segments.collect::<Vec<_>>().join("/")
}

fn variable(method: &schema::Method, name: &str, place: &str) -> usize {
    let schema = Schema::get();
    let (index, field) = schema.messages[method.input].field_by_json(name).expect("the schema checked it");
    let single = match field.kind {
        Kind::Message(id) => schema.messages[id].shape == Shape::Timestamp,
        _ => true,
    };
    assert!(single && field.cardinality == Many::One, "{place}: {name} is no single value and cannot be in a path");
    index
}

fn data_field(method: &schema::Method, name: &str, place: &str) -> usize {
    let output = &Schema::get().messages[method.output];
    let (index, _) = output.field_by_json(name).expect("the schema checked it");
    let beside = output.fields.iter().enumerate().filter(|(other, _)| *other != index);
    for (_, field) in beside {
        assert!(
            !matches!(field.name.as_str(), "success" | "data"),
            "{place}: {} is a name of the envelope",
            field.name
        );
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use upbridge_proto::UPBRIDGE;

    fn found(verb: Method, path: &str) -> (&'static str, Vec<String>) {
        static TABLE: std::sync::LazyLock<Table> = std::sync::LazyLock::new(|| Table::of(&UPBRIDGE));
        match TABLE.find(&verb, path) {
            Found::Endpoint(endpoint, variables) => (&endpoint.method.name, variables),
            Found::Other(allow) => ("other", vec![allow]),
            Found::Nothing => ("nothing", Vec::new()),
        }
    }

    #[test]
    fn every_binding_of_the_contract_leads_to_its_rpc() {
        let table = Table::of(&UPBRIDGE);
        for method in UPBRIDGE.methods().iter().filter(|method| !method.client_streaming) {
            for binding in &method.bindings {
                let path = positional(&binding.template).replace(['{', '}'], "");
                let verb = binding.verb.parse().unwrap();
                let Found::Endpoint(endpoint, _) = table.find(&verb, &path) else { panic!("{verb} {path}") };
                assert_eq!(endpoint.method.path, method.path, "{verb} {path}");
            }
        }
    }

    #[test]
    fn fixed_segments_go_before_variables() {
        assert_eq!(found(Method::GET, "/api/admin/users/stats"), ("GetUserStats", vec![]));
        assert_eq!(found(Method::GET, "/api/admin/users/42"), ("GetUser", vec!["42".into()]));
        assert_eq!(found(Method::HEAD, "/api/admin/users/42"), ("GetUser", vec!["42".into()]));
    }

    #[test]
    fn other_verbs_are_told_which_ones_there_are() {
        assert_eq!(found(Method::GET, "/api/v1/client/auth/login"), ("other", vec!["POST".into()]));
        let all = "GET, HEAD, PUT, PATCH, DELETE";
        assert_eq!(found(Method::POST, "/api/admin/users/42"), ("other", vec![all.into()]));
        assert_eq!(found(Method::TRACE, "/api/admin/users/42"), ("other", vec![all.into()]));
    }

    #[test]
    fn no_path_matches_by_accident() {
        for path in
            ["/", "", "/api", "/api/admin/users/", "/api/admin/users/42/", "//api/admin/users", "/api/admin/users/a/b"]
        {
            assert_eq!(found(Method::GET, path).0, "nothing", "{path}");
        }
    }

    #[test]
    fn an_encoded_slash_is_part_of_a_variable() {
        let table = Table::of(&UPBRIDGE);
        let path = "/api/v1/client/membership/feature/a%2Fb%20%C3%A9/access";
        let Found::Endpoint(endpoint, raw) = table.find(&Method::GET, path) else { panic!() };
        assert_eq!(endpoint.decode(&raw).unwrap()[0].1, "a/b é");
        assert!(endpoint.decode(&["%ff".into()]).is_err());
    }

    #[test]
    #[should_panic(expected = "cannot be routed")]
    fn one_path_for_two_rpcs_is_found_at_start() {
        let method = &UPBRIDGE.methods()[0];
        let mut table = Table::default();
        table.insert(method, &method.bindings[0]);
        table.insert(method, &method.bindings[0]);
    }
}
