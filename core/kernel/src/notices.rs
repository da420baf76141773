//! Notices between the processes of a tenant on PostgreSQL: each process hears the others on one connection, the only one that it keeps at
//! rest, and asks there what it still has to ask.

use crate::error::Error;
use crate::postgres::{CONNECT_LIMIT, Logins, connection_error};
use crate::rest::Rest;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sea_orm::sqlx::{self, Acquire, AssertSqlSafe, PgConnection, PgPool};
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// The channel; PostgreSQL parts those of databases.
pub(crate) const CHANNEL: &str = "heyuan";
/// Tells every process that listens, once the unit has committed: the channel, and the name of the process that tells.
pub(crate) const TELL: &str = "SELECT pg_notify($1, $2)";
/// How long a question may take on the connection that hears; then that is given up. Nothing holds the row of a lease at rest.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Before a lost connection is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long saying good-bye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// How long a connection of the pool outlives, at rest, what it was opened for.
const SPARED: Duration = Duration::from_secs(2);

/// A statement by itself that answers a whole number or nothing; the name is its first value, then the holder and the numbers.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) name: String,
    pub(crate) holder: String,
    pub(crate) numbers: Vec<i64>,
}

impl Question {
    async fn ask(&self, connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
        let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(self.text.clone())).bind(&self.name).bind(&self.holder);
        self.numbers.iter().fold(query, |query, number| query.bind(number)).fetch_optional(connection).await
    }
}

type Answer = Result<Option<i64>, sqlx::Error>;

/// A question on its way to the connection that hears.
struct Asked {
    question: Question,
    reply: oneshot::Sender<Answer>,
}

/// The way to the connection that hears, while there is one.
#[derive(Default)]
pub(crate) struct Notices {
    ear: Mutex<Option<mpsc::Sender<Asked>>>,
}

impl Notices {
    fn set(&self, ear: Option<mpsc::Sender<Asked>>) {
        *self.ear.lock().unwrap_or_else(PoisonError::into_inner) = ear;
    }

    fn ear(&self) -> Option<mpsc::Sender<Asked>> {
        self.ear.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hears the others, and lets the process rest as long as it does. A connection that is lost, or of an earlier login, is replaced.
    pub(crate) async fn follow(&self, logins: &Logins, pool: &PgPool, rest: &Rest) -> Infallible {
        let mut switches = logins.switches();
        loop {
            switches.mark_unchanged();
            match timeout(CONNECT_LIMIT, Ear::open(logins.connect_options())).await {
                Ok(Ok(mut ear)) => {
                    let (asks, mut asked) = mpsc::channel(1);
                    self.set(Some(asks));
                    // What others committed before, nobody told this process of.
                    rest.stir();
                    let why = tokio::select! {
                        why = ear.listen(logins.process(), rest, &mut asked) => why,
                        _ = switches.changed() => "another login is in force".to_owned(),
                        never = rest.keep() => match never {},
                        never = spare(pool, rest) => match never {},
                    };
                    self.set(None);
                    rest.stir();
                    tracing::debug!(why, "the connection that hears other processes is opened again");
                    ear.close().await;
                }
                Ok(Err(error)) => tracing::warn!(%error, "other processes can't be heard; this one does not rest"),
                Err(_) => tracing::warn!("other processes can't be heard in time; this one does not rest"),
            }
            sleep(AGAIN).await;
        }
    }

    /// Asks on the connection that hears while the process rests, else on one of the pool.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(crate) async fn ask(&self, question: Question, pool: &PgPool, rest: &Rest) -> Result<Option<i64>, Error> {
        if rest.since().is_some()
            && let Some(ear) = self.ear()
        {
            let (reply, answer) = oneshot::channel();
            let sent = ear.send(Asked { question: question.clone(), reply }).await.is_ok();
            // Without an answer the connection has just been lost or given back.
            if sent && let Ok(answer) = answer.await {
                return answer.map_err(connection_error);
            }
        }
        let mut connection = pool.acquire().await.map_err(connection_error)?;
        question.ask(&mut connection).await.map_err(connection_error)
    }
}

/// The connection that hears, in a pool of its own.
struct Ear {
    listener: PgListener,
    pool: PgPool,
}

impl Ear {
    async fn open(options: PgConnectOptions) -> Result<Ear, sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_LIMIT).idle_timeout(None).max_lifetime(None);
        let pool = pool.connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(Ear { listener, pool })
    }

    /// Hears notices and answers questions; ends with the connection, and answers why.
    async fn listen(&mut self, own: &str, rest: &Rest, asked: &mut mpsc::Receiver<Asked>) -> String {
        loop {
            tokio::select! {
                notice = self.listener.try_recv() => match notice {
                    Ok(Some(notice)) if notice.payload() == own => {}
                    Ok(Some(_)) => rest.hear(),
                    Ok(None) => return "it was lost".to_owned(),
                    Err(error) => return error.to_string(),
                },
                Some(Asked { question, reply }) = asked.recv() => {
                    let answer = timeout(ANSWER_LIMIT, self.answer(&question)).await;
                    let timed_out = answer.is_err();
                    // Whoever asked may have gone away.
                    let _ = reply.send(answer.unwrap_or(Err(sqlx::Error::PoolTimedOut)));
                    if timed_out {
                        return "it gave no answer in time".to_owned();
                    }
                }
            }
        }
    }

    async fn answer(&mut self, question: &Question) -> Answer {
        question.ask(self.listener.acquire().await?).await
    }

    async fn close(self) {
        drop(self.listener);
        // Whether it says good-bye or not, it is gone.
        let _ = timeout(CLOSE_LIMIT, self.pool.close()).await;
    }
}

/// Closes what lies idle in the pool while the process rests.
async fn spare(pool: &PgPool, rest: &Rest) -> Infallible {
    let mut resting = rest.follow();
    loop {
        if resting.borrow_and_update().is_none() {
            // The sender lives as long as the database.
            let _ = resting.changed().await;
        }
        let _ = timeout(SPARED, resting.changed()).await;
        if rest.since().is_some() {
            while let Some(idle) = pool.try_acquire() {
                let _ = idle.close().await;
            }
        }
    }
}
