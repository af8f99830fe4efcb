//! The native backend: rulesets as nf_tables messages, and back.
