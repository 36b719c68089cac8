//! Addresses as they are given on the command line.

use std::fmt;
use std::net::TcpListener;
use std::str::FromStr;

use crate::error::HostError;

/// Whether `address` is of the form HOST:PORT.
pub(crate) fn check_address(address: &str) -> Result<(), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("a port is missing (HOST:PORT)")?;
    if host.is_empty() {
        return Err("a host is missing (HOST:PORT)");
    }
    port.parse::<u16>().map_err(|_| "a port is a number up to 65535")?;
    Ok(())
}

/// Where a server shows itself: `HOST:PORT`, or a port of this host alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAddress(String);

impl FromStr for HttpAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.parse::<u16>().is_ok() {
            return Ok(Self(format!("127.0.0.1:{text}")));
        }
        check_address(text).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HttpAddress {
    /// Takes the port.
    ///
    /// # Errors
    /// One line that names the address.
    pub fn bind(&self) -> Result<TcpListener, HostError> {
        TcpListener::bind(&self.0).map_err(|error| format!("--http {self}: {error}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::HttpAddress;

    #[test]
    fn a_port_alone_is_a_port_of_this_host() {
        assert_eq!("7400".parse::<HttpAddress>().unwrap().to_string(), "127.0.0.1:7400");
        assert_eq!("0.0.0.0:7400".parse::<HttpAddress>().unwrap().to_string(), "0.0.0.0:7400");
        for bad in ["", ":7400", "70000", "host", "host:", "host:port"] {
            assert!(bad.parse::<HttpAddress>().is_err(), "{bad}");
        }
    }
}
