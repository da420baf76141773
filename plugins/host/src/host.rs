//! The host: takes plugins in, keeps them by digest, hands out what can be called.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use wasmtime::{
    Engine,
    component::{Component, HasSelf, Linker},
};

use crate::{
    BenefitRule, Description, Digest, Error, HostConfig, Limits, Tagger,
    cache::Cache,
    call::{Call, CallState},
    compile,
    description::{BenefitRuleDescription, TaggerDescription},
    engine::{Clock, code_key, serving_engine},
    worlds::{self, BENEFITS, LOG, TAGGING},
};

/// What every call needs.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) tagger: Limits,
    pub(crate) benefit_rule: Limits,
}

/// A plugin that is ready to run.
pub(crate) enum Plugin {
    Tagger { pre: worlds::tagger::TaggerPre<CallState>, description: TaggerDescription },
    BenefitRule { pre: worlds::benefit_rule::BenefitRulePre<CallState>, description: BenefitRuleDescription },
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    config: HostConfig,
    cache: Cache,
    plugins: RwLock<HashMap<Digest, Arc<Plugin>>>,
    /// One compiler at a time: each may use much memory.
    compiling: Mutex<()>,
}

impl Host {
    pub fn new(config: HostConfig) -> Result<Self, Error> {
        let memory_bytes = config.tagger.memory_bytes.max(config.benefit_rule.memory_bytes);
        let engine = serving_engine(config.concurrent_calls, memory_bytes).map_err(|error| Error::Config(format!("{error:#}")))?;
        let cache = Cache::open(&config.compiled_cache_dir, config.cache_key, code_key(&engine))?;
        let clock = Clock::start(&engine).map_err(|error| Error::Config(format!("start the plugin clock: {error}")))?;
        let shared = Arc::new(Shared { engine, clock, tagger: config.tagger, benefit_rule: config.benefit_rule });
        Ok(Self(Arc::new(Inner { shared, config, cache, plugins: RwLock::default(), compiling: Mutex::default() })))
    }

    /// Takes a component in, compiling it in a child unless that was done before, and checks what it says about itself.
    ///
    /// Blocks for as long as the compiler takes (a second or so); not for an async thread. A digest that is already in is done
    /// at once.
    pub fn install(&self, component: &[u8]) -> Result<Digest, Error> {
        self.check_upload(component)?;
        let digest = Digest::of(component);
        if self.load(&digest)? {
            return Ok(digest);
        }
        let _one_at_a_time = self.0.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever held the lock may have compiled the same.
        if self.load(&digest)? {
            return Ok(digest);
        }
        let code = compile::compile(&self.0.config.compiler, digest, component)?;
        let plugin = self.ready(digest, &code)?;
        // Kept only after every check, so that a refused plugin leaves nothing behind.
        self.0.cache.put(&digest, &code)?;
        tracing::info!(plugin.digest = %digest, plugin.code_bytes = code.len(), "compiled a plugin");
        self.keep(digest, plugin);
        Ok(digest)
    }

    /// Takes a plugin in from the store of compiled code alone. False when its code is not there for this engine, so that the
    /// component is needed. Code that is not ours is set aside, logged, and treated as missing.
    pub fn load(&self, digest: &Digest) -> Result<bool, Error> {
        if self.is_installed(digest) {
            return Ok(true);
        }
        let code = match self.0.cache.get(digest) {
            Ok(Some(code)) => code,
            Ok(None) => return Ok(false),
            Err(error @ Error::Tampered { .. }) => {
                tracing::error!(plugin.digest = %digest, %error, "compiled code was changed by somebody else; it was set aside");
                self.0.cache.quarantine(digest)?;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let plugin = self.ready(*digest, &code)?;
        self.keep(*digest, plugin);
        Ok(true)
    }

    /// Forgets a plugin; its compiled code stays in the store, and calls that run end as usual.
    pub fn unload(&self, digest: &Digest) -> bool {
        self.0.plugins.write().unwrap_or_else(PoisonError::into_inner).remove(digest).is_some()
    }

    pub fn is_installed(&self, digest: &Digest) -> bool {
        self.0.plugins.read().unwrap_or_else(PoisonError::into_inner).contains_key(digest)
    }

    pub fn describe(&self, digest: &Digest) -> Result<Description, Error> {
        Ok(match &*self.plugin(digest)? {
            Plugin::Tagger { description, .. } => Description::Tagger(description.clone()),
            Plugin::BenefitRule { description, .. } => Description::BenefitRule(description.clone()),
        })
    }

    pub fn tagger(&self, digest: &Digest) -> Result<Tagger, Error> {
        let plugin = self.plugin(digest)?;
        match &*plugin {
            Plugin::Tagger { pre, description } => Ok(Tagger::new(Arc::clone(&self.0.shared), *digest, pre.clone(), description.clone())),
            Plugin::BenefitRule { .. } => Err(Error::Kind { digest: *digest, is: "benefit rule", wanted: "tagger" }),
        }
    }

    pub fn benefit_rule(&self, digest: &Digest) -> Result<BenefitRule, Error> {
        let plugin = self.plugin(digest)?;
        match &*plugin {
            Plugin::BenefitRule { pre, description } => {
                Ok(BenefitRule::new(Arc::clone(&self.0.shared), *digest, pre.clone(), description.clone()))
            }
            Plugin::Tagger { .. } => Err(Error::Kind { digest: *digest, is: "tagger", wanted: "benefit rule" }),
        }
    }

    fn plugin(&self, digest: &Digest) -> Result<Arc<Plugin>, Error> {
        let plugins = self.0.plugins.read().unwrap_or_else(PoisonError::into_inner);
        plugins.get(digest).cloned().ok_or(Error::NotInstalled(*digest))
    }

    fn keep(&self, digest: Digest, plugin: Plugin) {
        self.0.plugins.write().unwrap_or_else(PoisonError::into_inner).insert(digest, Arc::new(plugin));
    }

    fn check_upload(&self, component: &[u8]) -> Result<(), Error> {
        let max = self.0.config.component_bytes;
        if component.len() > max {
            return Err(Error::TooLarge { bytes: component.len(), max });
        }
        if Engine::detect_precompiled(component).is_some() {
            return Err(Error::NotAComponent("it is precompiled code, which only the host itself may make"));
        }
        match component.get(..8) {
            Some([0, b'a', b's', b'm', 0x0d, 0, 1, 0]) => Ok(()),
            Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
                Err(Error::NotAComponent("it is a core module; make a component of it, for Rust with `heyuan-componentize`"))
            }
            Some([0, b'a', b's', b'm', ..]) => Err(Error::NotAComponent("it is of an unknown version of WebAssembly")),
            _ => Err(Error::NotAComponent("it is not WebAssembly")),
        }
    }

    /// Loads code that was just compiled or has proved to be ours, and asks the plugin what it is.
    fn ready(&self, digest: Digest, code: &[u8]) -> Result<Plugin, Error> {
        let world = |message: String| Error::World { digest, message };
        let component = deserialize(&self.0.shared.engine, code).map_err(|error| world(format!("{error:#}")))?;
        let (imports, exports) = names(&self.0.shared.engine, &component);
        if let Some(import) = imports.into_iter().find(|import| import != LOG) {
            return Err(Error::Import { digest, import, allowed: LOG });
        }
        let mut linker = Linker::<CallState>::new(&self.0.shared.engine);
        worlds::tagger::heyuan::plugins::log::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)
            .map_err(|error| world(format!("{error:#}")))?;
        let pre = linker.instantiate_pre(&component).map_err(|error| world(format!("{error:#}")))?;
        let exports_world = |name: &str| exports.iter().any(|export| export == name);
        match (exports_world(TAGGING), exports_world(BENEFITS)) {
            (true, false) => {
                let pre = worlds::tagger::TaggerPre::new(pre).map_err(|error| world(format!("{error:#}")))?;
                self.describe_tagger(digest, pre)
            }
            (false, true) => {
                let pre = worlds::benefit_rule::BenefitRulePre::new(pre).map_err(|error| world(format!("{error:#}")))?;
                self.describe_benefit_rule(digest, pre)
            }
            (true, true) => Err(world(format!("it exports both {TAGGING} and {BENEFITS}; one plugin is one thing"))),
            (false, false) => Err(world(format!(
                "it exports {}, but this host knows {TAGGING} and {BENEFITS}",
                if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") }
            ))),
        }
    }

    fn describe_tagger(&self, digest: Digest, pre: worlds::tagger::TaggerPre<CallState>) -> Result<Plugin, Error> {
        let shared = &self.0.shared;
        let mut call = Call::new(&shared.engine, &shared.clock, &shared.tagger, 0).map_err(|source| Error::Describe { digest, source })?;
        let answer = pre
            .instantiate(&mut call.store)
            .and_then(|instance| instance.heyuan_plugins_tagging().call_describe(&mut call.store))
            .map_err(|error| Error::Describe { digest, source: call.failed(&error) })?;
        let description = TaggerDescription::checked(answer).map_err(|message| Error::Description { digest, message })?;
        Ok(Plugin::Tagger { pre, description })
    }

    fn describe_benefit_rule(&self, digest: Digest, pre: worlds::benefit_rule::BenefitRulePre<CallState>) -> Result<Plugin, Error> {
        let shared = &self.0.shared;
        let mut call =
            Call::new(&shared.engine, &shared.clock, &shared.benefit_rule, 0).map_err(|source| Error::Describe { digest, source })?;
        let answer = pre
            .instantiate(&mut call.store)
            .and_then(|instance| instance.heyuan_plugins_benefits().call_describe(&mut call.store))
            .map_err(|error| Error::Describe { digest, source: call.failed(&error) })?;
        let description = BenefitRuleDescription::checked(answer).map_err(|message| Error::Description { digest, message })?;
        Ok(Plugin::BenefitRule { pre, description })
    }
}

/// The names of what a component imports and exports.
fn names(engine: &Engine, component: &Component) -> (Vec<String>, Vec<String>) {
    let ty = component.component_type();
    let imports = ty.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    (imports, exports)
}

#[expect(unsafe_code, reason = "compiled code can only be loaded on trust; the callers have established it")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes came from our own compiler a moment ago, or carry the mark that only the host's key makes.
    unsafe { Component::deserialize(engine, code) }
}
