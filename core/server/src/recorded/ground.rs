//! A tenant whose clock stands, with real plugins and invented customers.

use super::case::{CallOf, Case, Decided, Figures, Step, Told};
use super::{corpus, files};
use crate::place::{Place, Schema};
use crate::sandbox::{COMPILE_COMMAND, Sandbox};
use crate::settings::Settings;
use crate::wiring::Hooks;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, CustomerId, Fen, Line, MemberId, OrgUnitId, ProductId, Timestamp, TransactionId, UnitKind};
use heyuan_harness::{TestDatabase, heyuan_binary};
use heyuan_kernel::keys::Credentials;
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::plugin::Plugins;
use heyuan_kernel::time::parse_rfc3339;
use heyuan_kernel::{Actor, Clock, Kernel, Problem, Reach, Scope, sql};
use heyuan_ledger::Ledger;
use heyuan_membership::{
    Budget, Customers, Decision, Error, FeatureValue, Features, Identifier, Join, Membership, Report, SessionFor, Spend, TransactionKind,
    TransactionState, TransactionView, Vouchers, Who, Wording, explain,
};
use heyuan_plugin_host::{CompilerCommand, Host, HostConfig};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

const UNITS: [(&str, UnitKind, Line); 5] = [
    ("home-1", UnitKind::Project, Line::Residential),
    ("mall-1", UnitKind::Mall, Line::Mall),
    ("hotel-1", UnitKind::Hotel, Line::Hotel),
    ("office-1", UnitKind::Office, Line::Office),
    ("community-1", UnitKind::Community, Line::Community),
];

/// What every customer's features are, whatever a rule asks for.
const FEATURE: FeatureValue = FeatureValue::Integer(7);

fn instant(text: &str) -> Timestamp {
    parse_rfc3339(text).unwrap_or_else(|| panic!("{text} is no RFC 3339 time"))
}

fn transaction_id(text: &str) -> TransactionId {
    TransactionId::new(text).expect("a case names transactions well")
}

fn unit_id(text: &str) -> OrgUnitId {
    OrgUnitId::new(text).expect("a case names units well")
}

/// A sandbox that keeps what it compiled in a folder, for all tenants of a test.
pub(super) fn host(compiled: &Path) -> Host {
    let compiler = CompilerCommand::new(heyuan_binary(), &[COMPILE_COMMAND]);
    Host::new(HostConfig::new(compiled, [7; 32], compiler)).expect("the host starts")
}

/// One customer for each name.
struct People;

impl Customers for People {
    fn anchor_for<'a>(&'a self, _: &'a Actor, _: &'a OrgUnitId, list: &'a [Identifier]) -> BoxFuture<'a, Result<AnchorId, Problem>> {
        let anchor = AnchorId::new(format!("anc_{}", list[0].value)).expect("a case names members well");
        async move { Ok(anchor) }.boxed()
    }

    fn find_anchors<'a>(&'a self, list: &'a [Identifier]) -> BoxFuture<'a, Result<Vec<AnchorId>, Problem>> {
        let anchors = list.iter().map(|one| AnchorId::new(format!("anc_{}", one.value)).expect("a case names members well")).collect();
        async move { Ok(anchors) }.boxed()
    }

    fn customer_of<'a>(&'a self, anchor: &'a AnchorId) -> BoxFuture<'a, Result<CustomerId, Problem>> {
        let customer = CustomerId::new(anchor.as_str().replacen("anc_", "cus_", 1)).expect("it is an id as well");
        async move { Ok(customer) }.boxed()
    }

    fn anchors_of<'a>(&'a self, customer: &'a CustomerId) -> BoxFuture<'a, Result<Vec<AnchorId>, Problem>> {
        let anchor = AnchorId::new(customer.as_str().replacen("cus_", "anc_", 1)).expect("it is an id as well");
        async move { Ok(vec![anchor]) }.boxed()
    }

    fn erase<'a>(&'a self, _: &'a Actor, _: &'a [AnchorId], _: &'a [AnchorId]) -> BoxFuture<'a, Result<(), Problem>> {
        async move { Ok(()) }.boxed()
    }

    fn features<'a>(&'a self, _: &'a AnchorId, names: &'a [String]) -> BoxFuture<'a, Result<Features, Problem>> {
        async move { Ok(Features { values: names.iter().map(|_| FEATURE).collect(), position: 1 }) }.boxed()
    }
}

/// Every product is a voucher of the mall.
struct Shelf;

impl Vouchers for Shelf {
    fn unit_of<'a>(&'a self, _: &'a ProductId) -> BoxFuture<'a, Result<Option<OrgUnitId>, Problem>> {
        async move { Ok(Some(unit_id("mall-1"))) }.boxed()
    }
}

/// The tenant of one case.
pub(super) struct Ground {
    kernel: Kernel,
    plugins: Plugins,
    pub(super) membership: Membership,
    pub(super) ledger: Ledger,
    pub(super) hooks: Arc<Hooks>,
    pub(super) admin: Actor,
    members: Mutex<HashMap<String, MemberId>>,
    wording: Wording,
}

impl Ground {
    pub(super) async fn open(database: &TestDatabase, host: &Host, case: &Case) -> Ground {
        let url = database.database_url().map(str::to_owned);
        let place = Place { data: database.data_dir().to_owned(), database_url: url, database_url_file: None, config: None };
        let mut kernel = place.open(&Settings::default(), Schema::Prepare).await.expect("the tenant opens");
        if !case.starts_at.is_empty() {
            kernel.clock = Clock::standing(instant(&case.starts_at));
        }
        let group = OrgUnit { id: unit_id("group"), parent: None, name: "group".into(), kind: UnitKind::Group, line: None };
        let units = UNITS.map(|(id, kind, line)| OrgUnit {
            id: unit_id(id),
            parent: Some(unit_id("group")),
            name: id.into(),
            kind,
            line: Some(line),
        });
        kernel.org.put([group].into_iter().chain(units).collect()).await.expect("the tree is put");
        let sandbox = Arc::new(Sandbox::over(host.clone()));
        let plugins = Plugins::new(kernel.db.clone(), sandbox.clone());
        let hooks = Arc::new(Hooks::new(plugins.clone(), sandbox, kernel.zone.clone(), Arc::default()));
        let credentials = Credentials::new(kernel.db.clone(), kernel.org.clone(), kernel.keys.clone(), kernel.clock.clone());
        let ledger = Ledger::new(kernel.clone());
        let membership =
            Membership::new(kernel.clone(), ledger.clone(), credentials, plugins.clone(), Arc::new(People), hooks.clone(), Arc::new(Shelf));
        membership.prepare().await.expect("the books open");
        let admin = Actor::key("key:recorder".into(), vec![Scope::App, Scope::Admin], None, Reach::Everything);
        Ground { kernel, plugins, membership, ledger, hooks, admin, members: Mutex::default(), wording: case.wording }
    }

    fn member(&self, name: &str) -> MemberId {
        self.members.lock().expect("nobody panics with it").get(name).cloned().unwrap_or_else(|| panic!("{name} has not joined"))
    }

    /// Does a step, and tells what came of a transaction.
    pub(super) async fn take(&self, step: &Step) -> Option<Told> {
        match step {
            Step::Wait { until } => self.kernel.clock.set(instant(until)),
            Step::EarnRules { rules } => drop(self.membership.put_earn_rules(&self.admin, rules).await.expect("the rules are put")),
            Step::Budget { rule, month, points } => {
                self.membership.set_budget(&self.admin, rule, month, *points).await.expect("the budget is set");
            }
            Step::NamedBudget { name, rules, lines, from, until, points } => {
                let budget = Budget {
                    name: name.clone(),
                    rules: rules.clone(),
                    lines: lines.clone(),
                    from: instant(from),
                    until: instant(until),
                    points_max: *points,
                };
                self.membership.put_budget(&self.admin, &budget).await.expect("the budget is set");
            }
            Step::Activate { rule, component, priority } => self.activate(rule, component, *priority).await,
            Step::Join { member } => self.join(member).await,
            Step::Spend { id, member, points } => {
                let spend = Spend { amount: *points, unit: unit_id("hotel-1"), reference: "late check-out".into() };
                self.membership.spend(&self.admin, &self.member(member), &spend, Some(id)).await.expect("it is enough");
            }
            Step::Purchase { id, unit, member, at, fen, lines } => {
                let report = Report {
                    id: transaction_id(id),
                    unit: unit_id(unit),
                    kind: TransactionKind::Purchase,
                    refund_of: None,
                    occurred_at: instant(at),
                    amount: Fen(*fen),
                    currency: "CNY".into(),
                    who: Some(Who::Member(self.member(member))),
                    lines: lines.clone(),
                };
                return Some(self.report(&report).await);
            }
            Step::Refund { id, of, unit, at, fen } => {
                let report = Report {
                    id: transaction_id(id),
                    unit: unit_id(unit),
                    kind: TransactionKind::Refund,
                    refund_of: Some(transaction_id(of)),
                    occurred_at: instant(at),
                    amount: Fen(*fen),
                    currency: "CNY".into(),
                    who: None,
                    lines: Vec::new(),
                };
                return Some(self.report(&report).await);
            }
        }
        None
    }

    async fn join(&self, name: &str) {
        let identifier = Identifier { kind: "phone".into(), value: name.into(), app: None };
        let join = Join { unit: unit_id("mall-1"), identifiers: vec![(identifier, true)], session: SessionFor::Nobody };
        let joined = self.membership.join(&self.admin, &join).await.expect("it joins");
        self.members.lock().expect("nobody panics with it").insert(name.to_owned(), joined.id);
    }

    async fn activate(&self, rule: &str, component: &str, priority: i64) {
        let module = std::fs::read(corpus().join("components").join(component)).expect("the component is there");
        let version = self.plugins.upload(&self.admin, rule, module).await.expect("the component is taken");
        self.plugins.activate(&self.admin, rule, &version.digest, priority, &version.reads).await.expect("it counts");
    }

    /// Makes every component of the corpus runnable, without making any count.
    pub(super) async fn install_all(&self) {
        for name in files("components").iter().filter(|name| name.ends_with(".wasm")) {
            let module = std::fs::read(corpus().join(name)).expect("the component is there");
            let plugin = name.trim_start_matches("components/").rsplit_once('-').expect("a component is named with its digest").0;
            self.plugins.upload(&self.admin, plugin, module).await.expect("the component is taken");
        }
    }

    /// Quotes a purchase, reports it, and looks at it.
    async fn report(&self, report: &Report) -> Told {
        let quoted = match report.kind {
            TransactionKind::Purchase => Some(self.membership.quote(&self.admin, report).await),
            TransactionKind::Refund => None,
        };
        let posted = self.membership.report(&self.admin, report, Some(report.id.as_str())).await;
        let transaction = report.id.to_string();
        let view = match posted {
            Err(error) => {
                let refused = Some(code(error));
                if let Some(quoted) = quoted {
                    assert_eq!(quoted.err().map(code), refused, "{transaction}: a quote says the same");
                }
                let nothing = Vec::new;
                return Told { transaction, refused, figures: None, decided: None, explanation: nothing(), explanation_zh: nothing() };
            }
            Ok(view) => view,
        };
        if let Some(quoted) = quoted {
            let quoted = quoted.expect("what can be posted can be quoted");
            let effects = |view: &TransactionView| (view.growth, view.points, view.effects.clone());
            assert_eq!(effects(&quoted), effects(&view), "{transaction}: a quote says the same");
        }
        let decision = match &view.decision {
            Some(id) if view.state == TransactionState::Posted => {
                Some(self.membership.decision(&self.admin, id).await.expect("the decision is kept"))
            }
            _ => None,
        };
        // As the release that recorded it said it.
        let decision = decision.map(|decision| Decision { wording: self.wording, ..decision });
        let words = explain(&view, decision.as_ref());
        Told {
            transaction,
            refused: None,
            figures: Some(figures(&view)),
            decided: decision.map(|decision| Decided {
                earn_version: decision.earn_version,
                basis: decision.basis,
                calls: decision.calls.into_iter().map(call).collect(),
            }),
            explanation: words.en,
            explanation_zh: words.zh,
        }
    }

    /// Changes stored rows past membership.
    pub(super) async fn alter(&self, text: &'static str) {
        let altered = self.kernel.db.write("alter", move |tx| async move { sql::execute(tx.conn(), text, []).await }.boxed());
        assert!(Result::<u64, heyuan_kernel::Error>::expect(altered.await, text) > 0, "{text}");
    }

    /// Every decision that was made.
    pub(super) async fn decisions(&self) -> Vec<String> {
        let rows = sql::all(self.kernel.db.reader(), "SELECT id FROM membership_decision ORDER BY id", []).await.expect("they are read");
        rows.iter().map(|row| sql::get(row, "id").expect("an id")).collect()
    }
}

fn code(error: Error) -> String {
    Problem::from(error).code().code.to_owned()
}

fn figures(view: &TransactionView) -> Figures {
    Figures {
        state: view.state.as_str().to_owned(),
        accounting_period: view.period.map(|period| period.to_string()),
        earn_version: view.earn_version,
        base_growth: view.base_growth,
        base_points: view.base_points,
        growth: view.growth,
        points: view.points,
        points_owed: view.points_owed,
        points_balance: view.points_balance,
        tier: view.tier.clone(),
    }
}

fn call(call: heyuan_membership::Call) -> CallOf {
    CallOf {
        rule: call.rule,
        digest: call.digest,
        input: hex::encode(call.input),
        output: hex::encode(call.output),
        effects_raw: call.effects_raw,
        effects: call.effects,
        budget_limit: call.budget_limit,
        budget_spent: call.budget_spent,
        budgets: call.drawn,
        points: call.points,
    }
}
