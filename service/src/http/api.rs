//! What a server's API is called and who may call it, for people.

use upbridge_proto::Contract;

/// A contract as an HTTP API: the few words of its description that are not read out of the contract.
#[derive(Debug)]
pub struct Api {
    /// The contract whose bindings are served and described.
    pub contract: &'static Contract,
    /// What the API is called, such as `Upbridge API`.
    pub title: &'static str,
    /// What the server is called in a sentence, such as `hub`.
    pub server: &'static str,
    /// What it is for, in a sentence or two; how requests and answers look is said after it.
    pub about: &'static str,
    /// Which token is taken as Bearer.
    pub token: &'static str,
    /// Whose key is taken as `x-api-key`.
    pub service_key: &'static str,
    /// The cookie of an administrator's session in the browser, where the server has such sessions.
    pub session_cookie: Option<&'static str>,
}

/// The hub's contract, for the tests of this room.
#[cfg(test)]
pub static TESTED: Api = Api {
    contract: &upbridge_proto::UPBRIDGE,
    title: "Upbridge API",
    server: "hub",
    about: "Connects two sides.",
    token: "The token of a sign-in.",
    service_key: "The other side's API key.",
    session_cookie: Some("upbridge_session"),
};
