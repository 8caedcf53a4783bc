//! Whose contract is whose: a server offers one of them, and shows nothing of the other.

use prost_reflect::DescriptorPool;

use crate::schema::{Method, Schema};

/// What one server promises: a package of services.
#[derive(Debug)]
pub struct Contract {
    /// The package whose services the server offers, such as `upbridge.v1`.
    pub package: &'static str,
    /// The `domain` of every `google.rpc.ErrorInfo` the server sends, by which a caller knows whose word a reason is.
    pub error_domain: &'static str,
    /// The contract with what it imports as an encoded `google.protobuf.FileDescriptorSet`, comments and options
    /// included: what reflection answers with and the OpenAPI document is written from.
    pub descriptor_set: &'static [u8],
}

/// What the hub promises to everybody.
pub static UPBRIDGE: Contract = Contract {
    package: "upbridge.v1",
    error_domain: "upbridge",
    descriptor_set: tonic::include_file_descriptor_set!("upbridge_descriptor"),
};

/// What CreatorUp promises to the hub and to its users.
pub static CREATORUP: Contract = Contract {
    package: "creatorup.v1",
    error_domain: "creatorup",
    descriptor_set: tonic::include_file_descriptor_set!("creatorup_descriptor"),
};

/// Every contract.
pub(crate) const CONTRACTS: &[&Contract] = &[&UPBRIDGE, &CREATORUP];

impl Contract {
    /// The contract a package is of; `None` for what nobody of the house offers.
    pub fn of_package(package: &str) -> Option<&'static Contract> {
        CONTRACTS.iter().find(|contract| contract.package == package).copied()
    }

    /// The contract whose server sends errors of this domain; `None` when it is none of the house's.
    pub fn of_domain(domain: &str) -> Option<&'static Contract> {
        CONTRACTS.iter().find(|contract| contract.error_domain == domain).copied()
    }

    /// The methods of its services, in the order of the files.
    pub fn methods(&self) -> &'static [Method] {
        let schema = Schema::get();
        &schema.all_methods()[schema.places(self.package)]
    }

    /// The method at that gRPC path, with its place in [`Contract::methods`]; `None` for one of another contract too.
    pub fn method(&self, path: &str) -> Option<(usize, &'static Method)> {
        let (_, method) = Schema::get().method(path)?;
        (method.package == self.package).then_some((method.place, method))
    }

    /// A descriptor pool, for those who need comments or reflection. Costs a few milliseconds.
    ///
    /// # Panics
    /// When the embedded descriptor set does not decode, which the build rules out.
    pub fn pool(&self) -> DescriptorPool {
        DescriptorPool::decode(self.descriptor_set).expect("the embedded descriptor set decodes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_sees_its_own_methods_and_no_others() {
        for contract in CONTRACTS {
            assert!(!contract.methods().is_empty());
            for (place, method) in contract.methods().iter().enumerate() {
                assert!(method.service.starts_with(&format!("{}.", contract.package)), "{}", method.path);
                assert_eq!(contract.method(&method.path).map(|(found, _)| found), Some(place));
                let elsewhere = CONTRACTS.iter().filter(|other| other.package != contract.package);
                elsewhere.for_each(|other| assert!(other.method(&method.path).is_none(), "{}", method.path));
            }
            assert!(std::ptr::eq(Contract::of_package(contract.package).unwrap(), *contract));
            assert!(std::ptr::eq(Contract::of_domain(contract.error_domain).unwrap(), *contract));
        }
    }
}
