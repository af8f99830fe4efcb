//! Each test is a sentence of policy-semantics section 2 to 6.
