//! Kernel settings of one network namespace. /proc/sys/net shows the namespace of the thread that opens it
//! (proc_sys(5)), so these functions are to be called from inside [`crate::Netns::run`].

use std::{fs, io, path::Path};

use crate::LabError;

/// Settings every namespace of the lab starts with. A setting this kernel does not have is left alone.
const EVERYWHERE: &[(&str, &str)] = &[
    // Forged sources must reach the filter under test, not die in the kernel's own check before it.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    // Everybody may open ping sockets, as container runtimes set it.
    ("net/ipv4/ping_group_range", "0 2147483647"),
    // Refusals are ICMP errors; the rate limit would turn some of them into silence (icmp(7)).
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv4/icmp_msgs_per_sec", "1000000"),
    ("net/ipv4/icmp_msgs_burst", "1000000"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    // Without duplicate address detection an address is usable at once.
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/default/addr_gen_mode", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
];

/// Makes a namespace forward packets, as nodes and the wire do.
const ROUTER: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/default/forwarding", "1"),
];

pub(crate) fn calm() -> Result<(), LabError> {
    write_all(EVERYWHERE)
}

pub(crate) fn forward() -> Result<(), LabError> {
    write_all(ROUTER)
}

/// Whether this kernel has IPv6 at all (it may be off at boot).
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

pub(crate) fn write(name: &str, value: &str) -> Result<(), LabError> {
    let sysctl = |source: io::Error| LabError::Sysctl { name: name.to_owned(), source };
    fs::write(Path::new("/proc/sys").join(name), value).map_err(sysctl)
}

pub(crate) fn read(name: &str) -> Result<String, LabError> {
    let sysctl = |source: io::Error| LabError::Sysctl { name: name.to_owned(), source };
    Ok(fs::read_to_string(Path::new("/proc/sys").join(name)).map_err(sysctl)?.trim().to_owned())
}

fn write_all(settings: &[(&str, &str)]) -> Result<(), LabError> {
    for (name, value) in settings {
        match write(name, value) {
            Err(LabError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            written => written?,
        }
    }
    Ok(())
}
