//! Whether `serve` could listen, asked without listening: a bridge that starts meanwhile is not
//! disturbed.

use std::io;
use std::net::SocketAddr;

use deskbridge::config::Config;
use socket2::{Domain, Socket, Type};

use super::finding::Finding;

/// Addresses that `serve` could not have. Not asked while it has them.
pub fn look(config: &Config) -> Vec<Finding> {
    let listeners = [
        ("http.listen", config.http.listen),
        ("admin.listen", config.admin.listen),
    ];
    let taken = listeners
        .into_iter()
        .filter_map(|(key, address)| Some((key, address, bind(address).err()?)));
    taken
        .map(|(key, address, error)| {
            let fix = match error.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "`ss -ltnp 'sport = :{}'` shows who has it; end that, or another `{key}`",
                    address.port()
                ),
                io::ErrorKind::PermissionDenied => {
                    format!("a port above 1023 in `{key}`, or the capability CAP_NET_BIND_SERVICE")
                }
                _ => format!("an address of this machine in `{key}`"),
            };
            Finding::error(format!("{key}: cannot listen on {address}: {error}"))
                .losing("`serve` refuses to start: webhooks are not answered")
                .trying(fix)
        })
        .collect()
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
    fn only_an_address_in_use_cannot_be_had() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut config = Config::default();
        config.http.listen = address;
        config.admin.listen = "127.0.0.1:0".parse().unwrap();
        let findings = look(&config);
        assert_eq!(findings.len(), 1, "{findings:?}");
        let expected = format!("http.listen: cannot listen on {address}: ");
        assert!(findings[0].problem.starts_with(&expected), "{findings:?}");
        drop(taken);
        assert!(look(&config).is_empty());
    }
}
