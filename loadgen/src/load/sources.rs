//! Source addresses out of a network, so that limits per address meet many users on one machine as they would meet them elsewhere.

use std::net::IpAddr;

use ipnet::IpNet;

/// The most addresses taken of a network.
const ADDRESSES_MAX: usize = 4096;

/// The first addresses of a network that a host can have, at most 4,096.
///
/// # Errors
/// It is none.
pub fn addresses(network: &str) -> Result<Vec<IpAddr>, String> {
    let net: IpNet = network.parse().map_err(|_| "a network such as 127.0.2.0/24".to_owned())?;
    Ok(net.hosts().take(ADDRESSES_MAX).collect())
}

/// For a command line: the text of a network.
pub(crate) fn network(text: &str) -> Result<String, String> {
    addresses(text).map(|_| text.to_owned())
}

/// Likewise, of one that lies within this machine.
pub(crate) fn loopback_network(text: &str) -> Result<String, String> {
    let net: IpNet = text.parse().map_err(|_| "a network such as 127.0.1.0/24".to_owned())?;
    if net.network().is_loopback() && net.broadcast().is_loopback() {
        Ok(text.to_owned())
    } else {
        Err("a part of the loopback network".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_network() {
        let check = |network: &str, count: usize, first: &str, last: &str| {
            let found = addresses(network).unwrap();
            let ends = [found[0].to_string(), found[found.len() - 1].to_string()];
            assert_eq!((found.len(), ends), (count, [first.into(), last.into()]), "{network}");
        };
        check("127.0.2.0/24", 254, "127.0.2.1", "127.0.2.254");
        check("127.0.2.7/32", 1, "127.0.2.7", "127.0.2.7");
        check("127.0.0.0/8", 4096, "127.0.0.1", "127.0.16.0");
        check("fd00::/64", 4096, "fd00::", "fd00::fff");
        for bad in ["", "127.0.0.1", "127.0.0.0/33", "here/8"] {
            assert!(addresses(bad).is_err(), "{bad}");
        }
    }
}
