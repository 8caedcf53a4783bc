//! Those who use both sides.

use upbridge_client::Client;

/// The plans of the product, by their numbers.
pub const PLANS: [(i32, &str); 3] = [(1, "Starter"), (2, "Pro"), (3, "Business")];

/// A user of the demo.
pub struct Person {
    /// What they are called.
    pub name: &'static str,
    /// Their UUID at the hub.
    pub id: String,
    /// Their token, good at both sides.
    pub token: String,
    /// Calls the hub as this user.
    pub hub: Client,
}

/// Everybody.
pub struct People {
    /// Members with a plan, and the last one without.
    pub members: Vec<Person>,
    /// Calls the hub as its administrator.
    pub admin: Client,
    /// The administrator's token.
    pub admin_token: String,
}

impl People {
    /// The one who comes without a plan.
    pub fn latecomer(&self) -> anyhow::Result<&Person> {
        self.members.last().ok_or_else(|| anyhow::anyhow!("nobody is there"))
    }
}
