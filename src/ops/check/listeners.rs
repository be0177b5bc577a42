//! Whether `serve` could listen on its addresses. Binds without listening, so that a bridge that
//! starts at the same time is not disturbed.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use super::finding::Findings;
use crate::config::Config;

/// Findings about addresses that `serve` could not bind. Not for use while it is running.
pub fn judge(config: &Config, list: &mut Findings) {
    let listeners = [
        ("http.listen", config.http.listen),
        ("admin.listen", config.admin.listen),
    ];
    for (key, address) in listeners {
        let Err(error) = bind(address) else { continue };
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "`ss -ltnp 'sport = :{}'` shows which program uses it; end that program, or use another `{key}`",
                address.port()
            ),
            io::ErrorKind::PermissionDenied => {
                format!("use a port above 1023 in `{key}`, or grant CAP_NET_BIND_SERVICE")
            }
            _ => format!("use an address of this machine in `{key}`"),
        };
        list.error(format!("{key}: cannot listen on {address}: {error}"))
            .impact("`serve` refuses to start: webhooks are not answered")
            .fix(fix);
    }
}

fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_an_address_in_use_is_unavailable() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut config = Config::default();
        config.http.listen = address;
        config.admin.listen = "127.0.0.1:0".parse().unwrap();
        let mut list = Findings::default();
        judge(&config, &mut list);
        assert_eq!(list.0.len(), 1, "{list:?}");
        let expected = format!("http.listen: cannot listen on {address}: ");
        assert!(list.0[0].problem.starts_with(&expected), "{list:?}");
        drop(taken);
        let mut list = Findings::default();
        judge(&config, &mut list);
        assert!(list.0.is_empty(), "{list:?}");
    }
}
