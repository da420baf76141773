//! Breakage: what is out at the end of a closed month, and what became of points as far from their expiry.

use crate::world::{World, at, code, purchase, unit, world};
use heyuan_contract::Line;
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{Breakage, Error, ImportOpenings, NoEstimate};

const ROWS: &str = "phone,points,cost_fen,expires_on,growth,earned_on,external_id\n\
    138,100,0.5,2026-12-31,,,a\n\
    138,100,0.5,2027-01-31,,,b\n\
    138,100,0.5,2027-02-28,,,c\n\
    138,100,0.5,2027-03-31,,,d\n\
    138,100,0.5,2027-04-30,,,e\n\
    138,100,0.5,2027-11-30,,,f\n";

impl World {
    async fn breakage(&self, as_of: Option<&str>) -> Result<Breakage, Error> {
        self.membership.breakage(&self.admin, as_of).await
    }
}

/// Month of expiry, points, fen; points and fen that will expire by which share of how many months.
type Told = (String, i64, i64, Result<(i64, i64, (i64, i64), i64), NoEstimate>);

fn told(breakage: &Breakage) -> Vec<Told> {
    let rows = breakage.rows.iter().inspect(|row| assert_eq!(row.issuer, Line::Hotel));
    rows.map(|row| {
        let expiring = row.expiring.map(|e| (e.points, e.fen, (e.share.expired, e.share.out), e.share.months));
        (row.expires_in.to_string(), row.points, row.fen, expiring)
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn points_as_far_from_their_expiry_as_earlier_ones_expire_like_them() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let (mapping, bytes) = (String::new(), ROWS.as_bytes().to_vec());
        let file = ImportOpenings { unit: unit("hotel-1"), mapping, dry_run: false, bytes, charset: None };
        let importer = Actor::key("key:import".into(), vec![Scope::Import], None, Reach::Everything);
        assert_eq!(world.membership.import_openings(&importer, &file, Some("openings")).await.expect("it is imported").posted, 6);
        assert_eq!(world.breakage(None).await.map_err(code).err(), Some("not_found"), "no month is closed");
        // In each month a part of what expires next is spent.
        for (days, amount) in [(30, 30), (60, 50), (90, 80)] {
            world.kernel.clock.set(at(days));
            world.membership.expire_points(None).await.expect("they are moved out");
            world.spend(&member, amount, &format!("s{days}")).await.expect("it is enough");
        }
        world.kernel.clock.set(at(150));
        for period in ["2026-11", "2026-12", "2027-01", "2027-02", "2027-03"] {
            world.membership.close(&world.admin, period).await.expect("it is the next");
        }
        let march = world.breakage(Some("2027-03")).await.expect("it is closed");
        let month = str::to_owned;
        let expected = vec![
            // Expired in April, after the month that is asked about. Of 70, 50 and 20 that were out a month before, all expired.
            (month("2027-04"), 100, 50, Ok((100, 50, (140, 140), 3))),
            // Of 300 that were out two months before their expiry 140 expired.
            (month("2027-05"), 100, 50, Ok((46, 23, (140, 300), 3))),
            (month("2027-12"), 100, 50, Err(NoEstimate::TooLittleHistory)),
        ];
        assert_eq!(told(&march), expected);
        let december = world.breakage(Some("2026-12")).await.expect("it is closed");
        let out: Vec<_> = december.rows.iter().map(|row| (row.points, row.expiring)).collect();
        assert_eq!(out, [70, 100, 100, 100, 100, 100].map(|points| (points, Err(NoEstimate::TooLittleHistory))));

        // Later facts change no closed month's answer.
        world.report(&purchase("t1", "hotel-1", 3_700, &member)).await.expect("it is posted");
        world.spend(&member, 90, "later").await.expect("it is enough");
        assert_eq!(world.breakage(None).await.expect("the last closed month"), march);
        for (as_of, refused) in [("2027-04", "not_found"), ("2027", "invalid_request")] {
            assert_eq!(world.breakage(Some(as_of)).await.map_err(code).err(), Some(refused), "{as_of}");
        }
        assert_eq!(world.membership.breakage(&world.app, None).await.map_err(code).err(), Some("forbidden"));
        world.sound().await;
    })
    .await;
}
