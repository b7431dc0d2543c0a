//! The requirements, in the order of the specification, with the tests beside them.

mod cgroups;
mod devices;
mod features;
mod hooks;
mod lifecycle;
mod linux;
mod mounts;
mod namespaces;
mod netdevices;
mod options;
mod process;
mod rdt;
mod seccomp;
mod seccomp_notify;
mod state;
mod user;

use crate::requirement::Requirement;

/// Every requirement; ids are unique.
pub fn all() -> impl Iterator<Item = &'static Requirement> {
    [
        mounts::TABLE,
        options::TABLE,
        process::TABLE,
        user::TABLE,
        hooks::TABLE,
        namespaces::TABLE,
        devices::TABLE,
        netdevices::TABLE,
        cgroups::TABLE,
        rdt::TABLE,
        seccomp::TABLE,
        seccomp_notify::TABLE,
        linux::TABLE,
        state::TABLE,
        lifecycle::TABLE,
        features::TABLE,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::requirement::Check;

    #[test]
    fn every_requirement_has_a_unique_id_a_section_a_text_and_a_verdict() {
        let mut seen = HashSet::new();
        for r in all() {
            assert!(seen.insert(r.id), "{} twice", r.id);
            assert!(r.section.contains(".md"), "{} has no section", r.id);
            assert!(r.text.len() >= 5, "{} says nothing", r.id);
            if let Check::NotTestable(reason) = r.check {
                assert!(reason.len() > 15, "{}: the reason says nothing", r.id);
            }
        }
    }

    #[test]
    fn an_id_begins_with_the_document_it_is_from() {
        let documents = [
            ("config.md", "config."),
            ("config-linux.md", "linux."),
            ("runtime.md", "runtime."),
            ("runtime-linux.md", "runtime-linux."),
            ("features.md", "features."),
            ("features-linux.md", "features-linux."),
            ("bundle.md", "bundle."),
            ("glossary.md", "glossary."),
        ];
        for r in all() {
            let file = r.section.split('#').next().unwrap_or_default();
            let prefix = documents
                .iter()
                .find(|(name, _)| *name == file)
                .map(|(_, p)| *p);
            assert!(
                prefix.is_some_and(|p| r.id.starts_with(p)),
                "{} of {}",
                r.id,
                r.section
            );
        }
    }
}
