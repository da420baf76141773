//! Every room, opened and wired to the others.

use crate::operator::Workshop;
use crate::place::Place;
use crate::sandbox::Sandbox;
use crate::settings::Settings;
use crate::usage::Usage;
use crate::wiring::{Hooks, Identities, MallMembers, MallVouchers, Past};
use actix_web::web;
use heyuan_attribution::Attribution;
use heyuan_cdp::Cdp;
use heyuan_cdp::know::Know;
use heyuan_kernel::chain::{Chain, Sealer};
use heyuan_kernel::keys::Credentials;
use heyuan_kernel::plugin::Plugins;
use heyuan_kernel::processor::Task;
use heyuan_kernel::pump::Reaction;
use heyuan_kernel::{Kernel, audit};
use heyuan_lake::Lake;
use heyuan_ledger::Ledger;
use heyuan_mall::Mall;
use heyuan_membership::{Login, Membership};
use heyuan_staff::{Housekeeping, StaffLogin};
use std::sync::Arc;
use utoipa_actix_web::service_config::ServiceConfig;

/// The facades of all rooms; cheap to clone.
#[derive(Clone)]
pub(crate) struct Rooms {
    pub(crate) plugins: Plugins,
    pub(crate) credentials: Credentials,
    usage: Arc<Usage>,
    ledger: Ledger,
    audit: Chain,
    lake: Lake,
    cdp: Cdp,
    know: Know,
    membership: Membership,
    login: Login,
    mall: Mall,
    attribution: Attribution,
    staff: StaffLogin,
}

impl Rooms {
    /// Opens every room on the kernel.
    pub(crate) async fn open(kernel: &Kernel, place: &Place, settings: &Settings) -> anyhow::Result<Rooms> {
        let sandbox = Arc::new(Sandbox::open(kernel, place, settings)?);
        let plugins = Plugins::new(kernel.db.clone(), sandbox.clone());
        let credentials = Credentials::new(kernel.db.clone(), kernel.org.clone(), kernel.keys.clone(), kernel.clock.clone());
        let ledger = Ledger::new(kernel.clone());
        let usage = Arc::new(Usage::default());
        let hooks = Arc::new(Hooks::new(plugins.clone(), sandbox, kernel.zone.clone(), usage.clone()));
        let cdp = Cdp::open(kernel.clone(), settings.collect.clone(), &place.data).await?;
        let mut lake_settings = settings.lake.clone();
        if lake_settings.dir.as_os_str().is_empty() {
            lake_settings.dir = place.data.join("lake");
        }
        cdp.watch_disk(&lake_settings.dir);
        let lake = Lake::open(kernel.clone(), lake_settings).await?.with_tail(cdp.tail());
        cdp.use_lake(lake.clone());
        let past = Past { cdp: cdp.clone(), lake: lake.clone() };
        let know = Know::new(kernel.clone(), hooks.clone(), Arc::new(past));
        let identities = Arc::new(Identities { cdp: cdp.clone(), know: know.clone() });
        let vouchers = Arc::new(MallVouchers(kernel.db.clone()));
        let membership =
            Membership::new(kernel.clone(), ledger.clone(), credentials.clone(), plugins.clone(), identities.clone(), hooks, vouchers);
        membership.prepare().await?;
        let login = Login::new(membership.clone(), settings.login.clone())?;
        let members = Arc::new(MallMembers::default());
        // Set once, here: nothing has been served yet.
        let _ = members.0.set(membership.clone());
        let mall = Mall::new(kernel.clone(), members, settings.mall.clone());
        let attribution = Attribution::new(kernel.clone(), identities);
        let staff = StaffLogin::new(kernel.clone(), credentials.clone(), &settings.staff)?;
        let audit = audit::chain(kernel);
        Ok(Rooms { plugins, credentials, usage, ledger, audit, lake, cdp, know, membership, login, mall, attribution, staff })
    }

    /// The room that collects.
    pub(crate) fn cdp(&self) -> Cdp {
        self.cdp.clone()
    }

    /// What the operator's wishes for plugins are carried out with.
    pub(crate) fn workshop(&self, settings: &Settings) -> Workshop {
        let (plugins, know, usage) = (self.plugins.clone(), self.know.clone(), self.usage.clone());
        Workshop { plugins, know, settings: settings.plugins.clone(), usage }
    }

    /// What the rooms do when others' facts arrive.
    pub(crate) fn reactions(&self) -> Vec<Arc<dyn Reaction>> {
        let mut all = self.cdp.reactions();
        all.extend(self.know.reactions());
        all.extend(self.membership.reactions());
        all.extend(self.mall.reactions());
        all.extend(self.attribution.reactions());
        all
    }

    /// What the rooms do in the background.
    pub(crate) fn tasks(&self) -> Vec<Arc<dyn Task>> {
        let mut all = self.cdp.tasks(vec![Arc::new(self.know.clone())]);
        all.extend(self.know.tasks());
        all.extend(self.lake.tasks());
        all.push(Arc::new(Sealer::new(self.ledger.chain())));
        all.push(Arc::new(Sealer::new(self.audit.clone())));
        all.extend(self.membership.tasks());
        all.extend(self.mall.tasks());
        all.extend(self.attribution.tasks());
        all.push(Arc::new(Housekeeping::new(self.staff.clone())));
        all
    }

    /// The rooms' routes, without their data.
    pub(crate) fn routes(config: &mut ServiceConfig) {
        heyuan_cdp::routes(config);
        heyuan_cdp::know::http::routes(config);
        heyuan_lake::routes(config);
        heyuan_membership::routes(config);
        heyuan_mall::routes(config);
        heyuan_attribution::routes(config);
        heyuan_staff::routes(config);
    }

    /// The rooms' data, for their routes.
    pub(crate) fn provide(&self, config: &mut ServiceConfig) {
        config
            .app_data(web::Data::new(self.plugins.clone()))
            .app_data(web::Data::new(self.credentials.clone()))
            .app_data(web::Data::new(self.cdp.clone()))
            .app_data(web::Data::new(self.know.clone()))
            .app_data(web::Data::new(self.lake.clone()))
            .app_data(web::Data::new(self.ledger.clone()))
            .app_data(web::Data::new(self.membership.clone()))
            .app_data(web::Data::new(self.login.clone()))
            .app_data(web::Data::new(self.mall.clone()))
            .app_data(web::Data::new(self.attribution.clone()))
            .app_data(web::Data::new(self.staff.clone()));
    }
}
