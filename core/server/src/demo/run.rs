//! `heyuan demo run`: a tenant in this process that fills itself with the demo group, once.

use super::client::{Call, Client};
use super::keys::{self, DemoKeys};
use super::progress::say;
use super::{RunDemo, Size, load};
use crate::place::Place;
use crate::{cli, gateway, serve};
use anyhow::{Context, anyhow};
use heyuan_demo::Config;
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
    let (place, simulated) = with_simulator(&options.place, &url)?;
    let simulator = simulated.as_ref().map(|simulated| simulated.url.clone());
    let listen = address.to_string();
    let server = serve::serve(&place, &listen, None);
    let fill = async {
        let filled = fill(&place, &Addresses { url: &url, simulator: simulator.as_deref() }, &options).await;
        if let Err(error) = &filled {
            say(&format!(
                "heyuan: the demo group is not loaded: {error:#}\nheyuan: it is served as far as it came; Ctrl-C, then start again to go on"
            ));
        }
        filled
    };
    tokio::pin!(server, fill);
    let mut simulated = simulated.map(|simulated| tokio::spawn(simulated.server));
    let filled = tokio::select! {
        served = &mut server => return served,
        filled = &mut fill => filled,
    };
    let served = server.await;
    if let Some(simulated) = simulated.take() {
        simulated.abort();
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

/// The demo's apps: name, appid, and the unit whose app it is.
const APPS: [(&str, &str, &str); 2] = [("mall", "wxdemomall", "mall-hz"), ("home", "wxdemohome", keys::APP_UNIT)];

/// The place with a payment gateway, WeChat and a provider of phone codes: the owner's own where the settings name them, else the simulator
/// beside the server.
fn with_simulator(place: &Place, url: &str) -> anyhow::Result<(Place, Option<Simulated>)> {
    let own = place.settings()?;
    let (pays, logs_in) = (own.mall.gateway_url.is_none(), own.login.apps.is_empty() && own.login.sms_url.is_none());
    if !pays && !logs_in {
        return Ok((place.clone(), None));
    }
    let mut keys = DemoKeys::read(&place.data)?.unwrap_or_default();
    if keys.payment_secret.is_empty() {
        keys.payment_secret = rand::random::<[u8; 16]>().map(|byte| format!("{byte:02x}")).concat();
        keys.write(&place.data)?;
    }
    let secret = keys.payment_secret;
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("could not listen for the simulator")?;
    let simulator = format!("http://{}", listener.local_addr()?);
    let mut settings = match &place.config {
        Some(path) => std::fs::read_to_string(path)?.parse::<toml::Table>()?,
        None => toml::Table::new(),
    };
    if pays {
        let mall = section(&mut settings, "mall")?;
        mall.insert("gateway_url".into(), simulator.clone().into());
        mall.insert("payment_secret".into(), secret.clone().into());
    }
    if logs_in {
        let login = section(&mut settings, "login")?;
        login.insert("wechat_url".into(), simulator.clone().into());
        login.insert("sms_url".into(), format!("{simulator}/sms/messages").into());
        login.insert("sms_secret".into(), secret.clone().into());
        let apps = section(login, "apps")?;
        for (name, appid, unit) in APPS {
            let app = section(apps, name)?;
            for (key, value) in [("kind", "wechat"), ("appid", appid), ("secret", secret.as_str()), ("unit", unit)] {
                app.insert(key.into(), value.into());
            }
        }
    }
    let config = keys::folder(&place.data).join("server.toml");
    keys::write_private(&config, &settings.to_string())?;
    let server = gateway::serve(listener, &secret, format!("{url}/v1/payments/notifications")).context("could not start the simulator")?;
    Ok((Place { config: Some(config), ..place.clone() }, Some(Simulated { server, url: simulator })))
}

/// The simulator beside the server.
struct Simulated {
    server: actix_web::dev::Server,
    url: String,
}

fn section<'a>(settings: &'a mut toml::Table, name: &str) -> anyhow::Result<&'a mut toml::Table> {
    let section = settings.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    section.as_table_mut().with_context(|| format!("the setting {name} is a section"))
}

/// Where the demo listens.
struct Addresses<'a> {
    url: &'a str,
    simulator: Option<&'a str>,
}

async fn fill(place: &Place, at: &Addresses<'_>, options: &RunDemo) -> anyhow::Result<()> {
    let url = at.url;
    let client = Client::new(url)?;
    let ready = tokio::time::timeout(START, client.expect(&Call::get("/readyz", ""))).await;
    ready.map_err(|_| anyhow!("the server did not answer within {} s", START.as_secs()))??;
    let from = keys::folder(&place.data);
    if load::mark(&place.data).exists() {
        return tell(place, at, "the demo group is loaded").await;
    }
    DemoKeys::of_group(place, &client).await?;
    tell(place, at, "the demo group is being loaded, the server answers meanwhile").await?;
    if !from.join("manifest.json").exists() {
        generate(options, &from).await?;
    }
    let loaded = load::load(place, url, &from, &options.plugins).await?;
    tell(place, at, &loaded.words()).await
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
async fn tell(place: &Place, at: &Addresses<'_>, state: &str) -> anyhow::Result<()> {
    let url = at.url;
    let simulator = at.simulator.unwrap_or("(the settings name real ones)");
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
         \x20 log-in      app mall (appid wxdemomall) and app home (appid wxdemohome); WeChat and SMS are simulated at {simulator}\n\
         \x20 a tour      heyuan tour --url {url} --data {data}   (--lang zh for Chinese)\n\
         \x20 The tenant's key lies beside its data in {data}: right for a demo, never in production. Ctrl-C stops.\n",
        keys.admin, keys.app
    ))
}
