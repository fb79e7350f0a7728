//! Listening sockets, and how one takes over a port from another that overlaps with it.
//!
//! `0.0.0.0:9201` and `127.0.0.1:9201` cannot be listened on at once. Where one replaces the other,
//! the new one has to be there before the old one may go, so for as long as that takes, both share
//! the port: the new one is bound beside the old one, but the kernel hands it no connection before
//! it listens, which cannot fail then.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait to be accepted; the kernel has a limit of its own.
const BACKLOG: i32 = 4096;

/// Listens at an address. Nothing is accepted by that.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // The standard library lets 128 wait, and who comes then tries again after a second.
    let socket = open(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether one port cannot be listened on at both; `[::]` takes IPv4 too.
pub fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let all = |ip: IpAddr| ip.is_ipv6() && ip.is_unspecified();
    if all(a) || all(b) {
        return true;
    }
    let (a, b) = (a.to_canonical(), b.to_canonical());
    a == b || (a.is_ipv4() && b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}

/// Binds an address of which others that share their port have a part. It does not listen yet.
pub(super) fn reserve(address: SocketAddr) -> io::Result<Socket> {
    let socket = open(address)?;
    share_port(&SockRef::from(&socket), true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let (domain, protocol) = (Domain::for_address(address), Protocol::TCP);
    let socket = Socket::new(domain, Type::STREAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // Elsewhere it would let another process take the address.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Has a socket that was reserved listen, alone on its port as soon as the others are gone.
pub(super) fn listen_at_last(socket: &Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    share_port(&SockRef::from(socket), false)?;
    Ok(socket.try_clone()?.into())
}

/// Says whether a socket lets others have its port that say the same.
#[cfg(unix)]
pub(super) fn share_port(socket: &SockRef<'_>, share: bool) -> io::Result<()> {
    socket.set_reuse_port(share)
}

/// Elsewhere, sockets cannot share a port in a way that can be taken back.
#[cfg(not(unix))]
pub(super) fn share_port(_: &SockRef<'_>, _: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
