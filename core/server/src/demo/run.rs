//! `heyuan demo run`: a tenant in this process that fills itself with the demo group, once.

use super::client::{Call, Client};
use super::keys::{self, DemoKeys};
use super::progress::say;
use super::{RunDemo, Size, load};
use crate::place::Place;
use crate::{cli, serve};
use anyhow::{Context, anyhow};
use heyuan_demo::Config;
use heyuan_mall::Secret;
use heyuan_mall::simulator::{self, Simulator};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the server may take to answer after its start.
const START: Duration = Duration::from_secs(60);

/// Serves, fills what is empty, and goes on serving until it is told to stop.
///
/// # Errors
/// In words: an address in use, a folder that can't be written, a load that broke off.
pub(crate) async fn run(options: RunDemo) -> anyhow::Result<()> {
    let address = free_address(&options.listen)?;
    let url = format!("http://{}", reachable(address));
    let (place, gateway) = with_gateway(&options.place, &url)?;
    let listen = address.to_string();
    let server = serve::serve(&place, &listen);
    let fill = async {
        let filled = fill(&place, &url, &options).await;
        if let Err(error) = &filled {
            say(&format!(
                "heyuan: the demo group is not loaded: {error:#}\nheyuan: it is served as far as it came; Ctrl-C, then start again to go on"
            ));
        }
        filled
    };
    tokio::pin!(server, fill);
    let mut gateway = gateway.map(tokio::spawn);
    let filled = tokio::select! {
        served = &mut server => return served,
        filled = &mut fill => filled,
    };
    let served = server.await;
    if let Some(gateway) = gateway.take() {
        gateway.abort();
    }
    served.and(filled)
}

/// The address to listen on, with port 0 made a free one, so that others can be told before it is bound.
fn free_address(listen: &str) -> anyhow::Result<SocketAddr> {
    let words = || format!("{listen} is no address to listen on, such as 127.0.0.1:8080");
    let address = listen.to_socket_addrs().with_context(words)?.next().with_context(words)?;
    let listener = TcpListener::bind(address).with_context(|| format!("could not listen on {listen}; is another server there?"))?;
    Ok(listener.local_addr()?)
}

/// Where this machine itself reaches the server.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let local: std::net::IpAddr = if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(local);
    }
    address
}

/// The place with a payment gateway: the owner's own where the settings name one, else the simulator beside the server.
fn with_gateway(place: &Place, url: &str) -> anyhow::Result<(Place, Option<actix_web::dev::Server>)> {
    if place.settings()?.mall.gateway_url.is_some() {
        return Ok((place.clone(), None));
    }
    let mut keys = DemoKeys::read(&place.data)?.unwrap_or_default();
    if keys.payment_secret.is_empty() {
        keys.payment_secret = rand::random::<[u8; 16]>().map(|byte| format!("{byte:02x}")).concat();
        keys.write(&place.data)?;
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("could not listen for the payment simulator")?;
    let mut settings = match &place.config {
        Some(path) => std::fs::read_to_string(path)?.parse::<toml::Table>()?,
        None => toml::Table::new(),
    };
    let mall = settings.entry("mall").or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let mall = mall.as_table_mut().context("the setting mall is a section")?;
    mall.insert("gateway_url".into(), format!("http://{}", listener.local_addr()?).into());
    mall.insert("payment_secret".into(), keys.payment_secret.clone().into());
    let config = keys::folder(&place.data).join("server.toml");
    keys::write_private(&config, &settings.to_string())?;
    let simulator = Simulator::new(Secret::new(keys.payment_secret), format!("{url}/v1/payments/notifications"));
    let gateway = simulator::serve(listener, simulator).context("could not start the payment simulator")?;
    Ok((Place { config: Some(config), ..place.clone() }, Some(gateway)))
}

async fn fill(place: &Place, url: &str, options: &RunDemo) -> anyhow::Result<()> {
    let client = Client::new(url)?;
    let ready = tokio::time::timeout(START, client.expect(&Call::get("/readyz", ""))).await;
    ready.map_err(|_| anyhow!("the server did not answer within {} s", START.as_secs()))??;
    let from = keys::folder(&place.data);
    if load::mark(&place.data).exists() {
        return tell(place, url, "the demo group is loaded").await;
    }
    DemoKeys::of_group(place, &client).await?;
    tell(place, url, "the demo group is being loaded, the server answers meanwhile").await?;
    if !from.join("manifest.json").exists() {
        generate(options, &from).await?;
    }
    let loaded = load::load(place, url, &from, &options.plugins).await?;
    tell(place, url, &loaded.words()).await
}

/// Generates a history that ends yesterday, so that windows such as thirty days find something in it.
async fn generate(options: &RunDemo, out: &Path) -> anyhow::Result<()> {
    let today = jiff::Timestamp::now().in_tz("Asia/Shanghai").context("could not tell the day in Shanghai")?.date();
    let Size { customers, days, seed } = options.size;
    let config = Config { customers, days, seed, end_date: today, faults: false };
    say(&format!("generating the history of {} customers over {} days", config.customers, config.days));
    let out: PathBuf = out.to_owned();
    tokio::task::spawn_blocking(move || heyuan_demo::generate(&config, &out)).await.context("generating broke off")??;
    Ok(())
}

/// Where to look.
async fn tell(place: &Place, url: &str, state: &str) -> anyhow::Result<()> {
    let keys = DemoKeys::read(&place.data)?.unwrap_or_default();
    let data = place.data.display();
    let ingest = if keys.ingest.is_empty() { "(made while loading)" } else { keys.ingest.as_str() };
    cli::print(&format!(
        "\nHeyuan: {state}\n\
         \x20 API         {url}/v1\n\
         \x20 API page    {url}/docs\n\
         \x20 keys        {data}/demo/keys.json\n\
         \x20   admin     {}\n\
         \x20   app       {}\n\
         \x20   ingest    {ingest}\n\
         \x20 a tour      heyuan tour --url {url} --data {data}   (--lang zh for Chinese)\n\
         \x20 The tenant's key lies beside its data in {data}: right for a demo, never in production. Ctrl-C stops.\n",
        keys.admin, keys.app
    ))
}
