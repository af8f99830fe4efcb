//! Who is behind a netlink port: `/proc/net/netlink` leads from port to socket, `/proc/PID/fd` from socket to
//! process. Only for messages to people; nothing is decided by it.
use std::fs;
use std::path::Path;

/// `NETLINK_NETFILTER` (linux/netlink.h), as the column `Eth` of `/proc/net/netlink` prints it.
const NETFILTER: &str = "12";

/// The process that holds the socket, for a person.
pub(crate) fn describe(port: u32) -> String {
    match find(port) {
        Some((pid, program)) => format!("{program} (pid {pid})"),
        None => format!("netlink port {port}, in another pid namespace"),
    }
}

/// Process id and name of whoever holds the socket with this port in our network namespace.
fn find(port: u32) -> Option<(u32, String)> {
    // The thread's own: the process may have threads in other network namespaces.
    let sockets = fs::read_to_string("/proc/thread-self/net/netlink").ok()?;
    let link = format!("socket:[{}]", inode(&sockets, port)?);
    let holds = |pid: &u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(&link)))
    };
    // A process's first netlink socket takes its pid as port: most often the first try finds it.
    let pid = Some(port).filter(holds).or_else(|| pids().find(holds))?;
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, program.trim_end().to_owned()))
}

/// Columns: address, protocol, port, groups, memory, memory, dump, locks, drops, inode.
fn inode(sockets: &str, port: u32) -> Option<&str> {
    sockets.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let here = columns.next()? == NETFILTER && columns.next()?.parse() == Ok(port);
        here.then(|| columns.last()).flatten()
    })
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
00000000a0a0     0   4242       00000000 0        0        0     2        0        1111
00000000b0b0     12  4242       00000000 0        0        0     2        0        2222
00000000c0c0     12  3858793472 00000000 0        0        0     2        0        3333
";

    #[test]
    fn a_port_is_looked_up_among_netfilter_sockets_only() {
        assert_eq!(inode(TABLE, 4242), Some("2222"));
        assert_eq!(inode(TABLE, 3_858_793_472), Some("3333"));
        assert_eq!(inode(TABLE, 7), None);
    }

    #[test]
    fn our_own_socket_leads_to_us() {
        let socket = podwall_netlink::Socket::open().unwrap();
        assert_eq!(find(socket.port()).map(|(pid, _)| pid), Some(std::process::id()));
    }
}
