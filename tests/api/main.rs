//! Against a real kube-apiserver and etcd: objects are changed through the API, and packets follow.
//!
//! Needs root and the tools that `tests/tools/build` makes. Without them every test says so and passes; with `CI`
//! set it fails instead.
mod ask;
mod ban;
mod barriers;
mod chart;
mod drops;
mod enforcement;
mod fallback;
mod image;
mod kinds;
mod names;
mod operator;
mod outage;
mod rbac;
mod relay;
mod report;
mod site;
mod tail;
