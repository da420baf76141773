//! A plugin's module from its address: from listed hosts on the open network alone, so that nobody reads what stands behind our walls.

use heyuan_kernel::Problem;
use heyuan_kernel::error::{Code, Kind};
use heyuan_kernel::guard::outside_unit;
use heyuan_kernel::plugin::MODULE_BYTES_MAX;
use heyuan_kernel::secret::sha256_hex;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// An address that is not fetched from.
const REFUSED: Code =
    Code::new(Kind::Invalid, "plugin_source_refused", "The plugin's source is not fetched from", "不允许从该地址获取插件");
/// Bytes that are not those that were named.
const MISMATCH: Code =
    Code::new(Kind::Invalid, "plugin_digest_mismatch", "The plugin's bytes are not those of its digest", "插件内容与摘要不符");
/// No answer, or not the module.
const UNREACHABLE: Code =
    Code::new(Kind::Unavailable, "plugin_source_unreachable", "The plugin's source gave no module", "无法从来源获取插件");

/// Redirections that are followed.
const REDIRECTS_MAX: usize = 3;
/// The source has this long to be there at all, and in all for one answer.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// When to try again.
const AGAIN_S: u32 = 30;

/// Where modules may come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sources<'a> {
    /// Hosts that may be asked; whoever they redirect to must be listed as well.
    pub(super) hosts: &'a [String],
    /// For trials on one machine: a loopback address may be asked, also without encryption.
    pub(super) loopback: bool,
}

/// Fetches a module, and checks that it is the one of the digest.
pub(super) async fn fetch(url: &str, digest: &str, from: Sources<'_>) -> Result<Vec<u8>, Problem> {
    outside_unit("fetching a plugin");
    let mut url: Url = url.parse().map_err(|_| refused("it is no URL"))?;
    for _ in 0..=REDIRECTS_MAX {
        let answer = ask(&url, from).await?;
        if answer.status().is_redirection() {
            url = redirected(&url, &answer)?;
            continue;
        }
        if answer.status().as_u16() != 200 {
            return Err(unreachable(format!("{} answers {}", host_of(&url), answer.status().as_u16())));
        }
        let module = read(&url, answer).await?;
        let found = sha256_hex(&module);
        if found != digest {
            return Err(Problem::new(MISMATCH, format!("the bytes have the digest sha256:{found}, and sha256:{digest} was named")));
        }
        return Ok(module);
    }
    Err(refused(&format!("it redirects more than {REDIRECTS_MAX} times")))
}

fn refused(why: &str) -> Problem {
    Problem::new(REFUSED, why).field("source.url")
}

fn unreachable(why: String) -> Problem {
    Problem::new(UNREACHABLE, why).retry_after_s(AGAIN_S)
}

fn host_of(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

fn redirected(url: &Url, answer: &Response) -> Result<Url, Problem> {
    let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
    let next = location.and_then(|location| url.join(location).ok());
    next.ok_or_else(|| unreachable(format!("{} redirects to nowhere", host_of(url))))
}

/// Asks the very addresses that were judged, so that no second look-up finds others.
async fn ask(url: &Url, from: Sources<'_>) -> Result<Response, Problem> {
    check_url(url, from)?;
    let addresses = addresses(url).await?;
    check_addresses(host_of(url), &addresses, from)?;
    let client = Client::builder().timeout(ANSWER_TIME).connect_timeout(CONNECT_TIME).redirect(Policy::none()).no_proxy();
    let client = client.resolve_to_addrs(host_of(url), &addresses).build();
    let client = client.map_err(|error| unreachable(format!("no request can be made: {error}")))?;
    let answer = client.get(url.clone()).send().await;
    answer.map_err(|error| unreachable(format!("{} gives no answer{}", host_of(url), if error.is_timeout() { " in time" } else { "" })))
}

fn check_url(url: &Url, from: Sources<'_>) -> Result<(), Problem> {
    let host = host_of(url).trim_end_matches('.').to_lowercase();
    if host.is_empty() || !from.hosts.iter().any(|listed| listed.eq_ignore_ascii_case(&host)) {
        return Err(refused(&format!("the host {host} is not one of those that the class allows")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("it names a user"));
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if from.loopback => Ok(()),
        other => Err(refused(&format!("{other} is not https"))),
    }
}

async fn addresses(url: &Url) -> Result<Vec<SocketAddr>, Problem> {
    let port = url.port_or_known_default().unwrap_or(443);
    let host = host_of(url).trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((host, port)).await;
    let found: Vec<SocketAddr> = found.map_err(|_| unreachable(format!("the host {host} is not known")))?.collect();
    if found.is_empty() { Err(unreachable(format!("the host {host} has no address"))) } else { Ok(found) }
}

/// One address that is not open to everybody refuses all: which of them is asked is not ours to say.
fn check_addresses(host: &str, addresses: &[SocketAddr], from: Sources<'_>) -> Result<(), Problem> {
    let allowed = |address: &SocketAddr| is_public(address.ip()) || (from.loopback && address.ip().is_loopback());
    match addresses.iter().all(allowed) {
        true => Ok(()),
        false => Err(refused(&format!("the host {host} has an address that is private, local or reserved"))),
    }
}

/// Whether an address is one of the open network, and neither of this machine, of a network behind a wall, nor of a cloud's own services.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let special = address.is_private() || address.is_loopback() || address.is_link_local() || address.is_multicast();
    let reserved = first == 0 || first >= 240 || address.is_documentation();
    // Networks of carriers, in which a cloud's metadata may stand too; tests of networks; assignments of protocols.
    let others = (first == 100 && (64..128).contains(&second))
        || (first == 198 && (18..20).contains(&second))
        || (first, second, third) == (192, 0, 0);
    !(special || reserved || others)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    if let Some(inner) = address.to_ipv4() {
        // Mapped and compatible spellings, with those of this machine.
        return !address.is_loopback() && !address.is_unspecified() && is_public_v4(inner);
    }
    let embedded = |high: u16, low: u16| is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match parts {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // The rest of what is open to everybody begins with these three bits; what is for tests and tunnels does too.
        [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x3fff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

async fn read(url: &Url, mut answer: Response) -> Result<Vec<u8>, Problem> {
    let mut module = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| unreachable(format!("{} broke its answer off", host_of(url))))? {
        if module.len() + chunk.len() > MODULE_BYTES_MAX {
            return Err(refused(&format!("it has more than {MODULE_BYTES_MAX} bytes")));
        }
        module.extend_from_slice(&chunk);
    }
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_behind_walls_are_told_from_open_ones() {
        for (address, expected) in [
            ("93.184.216.34", true),
            ("2606:2800:220:1::1", true),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("100.100.100.200", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("198.18.0.1", false),
            ("::1", false),
            ("::", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:93.184.216.34", true),
            ("::10.0.0.1", false),
            ("64:ff9b::a00:1", false),
            ("2002:a00:1::", false),
            ("2001:db8::1", false),
            ("2001::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_public(address.parse().expect("an address")), expected, "{address}");
        }
    }

    #[test]
    fn only_listed_hosts_are_asked_and_only_behind_encryption() {
        let hosts = ["plugins.example.com".to_owned()];
        let check = |url: &str, loopback| check_url(&url.parse().expect("a URL"), Sources { hosts: &hosts, loopback }).is_ok();
        assert!(check("https://plugins.example.com/a.wasm", false));
        assert!(check("https://PLUGINS.example.com:8443/a.wasm", false));
        assert!(check("http://plugins.example.com/a.wasm", true));
        for url in [
            "http://plugins.example.com/a.wasm",
            "https://plugins.example.com.evil.example/a.wasm",
            "https://evil.example/plugins.example.com",
            "https://user:word@plugins.example.com/a.wasm",
            "file:///etc/passwd",
        ] {
            assert!(!check(url, false), "{url}");
        }
    }
}
