//! Every room, opened and wired to the others.

use crate::place::Place;
use crate::sandbox::Sandbox;
use crate::settings::Settings;
use actix_web::web;
use heyuan_kernel::Kernel;
use heyuan_kernel::plugin::Plugins;
use heyuan_kernel::processor::Task;
use heyuan_kernel::pump::Reaction;
use std::sync::Arc;
use utoipa_actix_web::service_config::ServiceConfig;

/// The facades of all rooms; cheap to clone.
#[derive(Clone)]
pub(crate) struct Rooms {
    pub(crate) plugins: Plugins,
}

impl Rooms {
    /// Opens every room on the kernel.
    pub(crate) async fn open(kernel: &Kernel, place: &Place, settings: &Settings) -> anyhow::Result<Rooms> {
        let sandbox = Arc::new(Sandbox::open(kernel, place, settings)?);
        let plugins = Plugins::new(kernel.db.clone(), sandbox.clone());
        Ok(Rooms { plugins })
    }

    /// What the rooms do when others' facts arrive.
    pub(crate) fn reactions(&self) -> Vec<Arc<dyn Reaction>> {
        Vec::new()
    }

    /// What the rooms do in the background.
    pub(crate) fn tasks(&self) -> Vec<Arc<dyn Task>> {
        Vec::new()
    }

    /// The rooms' routes, without their data.
    pub(crate) fn routes(_config: &mut ServiceConfig) {}

    /// The rooms' data, for their routes.
    pub(crate) fn provide(&self, config: &mut ServiceConfig) {
        config.app_data(web::Data::new(self.plugins.clone()));
    }
}
