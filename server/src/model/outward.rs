//! Which addresses the hub may call, as its rules need it. How they are judged is `delivery`'s, which judges them again
//! when it calls: a name may lead elsewhere by then.

/// Judges addresses that somebody names.
pub trait Outward: Send + Sync + 'static {
    /// An `http` or `https` address without user, query and fragment.
    fn judge(&self, url: &str) -> Result<Callable, NotCallable>;

    /// The name or address of a host, without a port, in the one spelling it is kept in.
    fn judge_host(&self, host: &str) -> Result<String, NotCallable>;
}

/// An address that may be called, as far as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callable {
    /// The one spelling it is kept in, without a slash at its end.
    pub url: String,
    /// Whether it is a literal address in a network that the operator lists.
    pub is_listed: bool,
}

/// Why an address may not be called. Its words say the same wherever one is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCallable {
    /// It is no such address.
    #[error("must be an address such as https://api.example.com, without user, query and fragment")]
    Malformed,
    /// It is no address a webhook can be sent to.
    #[error("must be an http or https address without user and fragment, of 2,000 characters at most")]
    MalformedHook,
    /// It is no name or address of a host.
    #[error("must be the name or the address of a host, without a port")]
    MalformedHost,
    /// It is not encrypted on its way.
    #[error("must begin with https; http is taken for addresses in OUTBOUND_ALLOWED_NETWORKS alone")]
    Insecure,
    /// It leads inside.
    #[error("is not an address the hub may call")]
    Blocked,
}
