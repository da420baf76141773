//! The month of `docs/membership.md`, figure by figure: what finance reads there is what the clearing says.

use crate::world::{at, purchase, refund, world};
use heyuan_contract::Line;
use heyuan_harness::for_both_databases;

const DOCUMENT: &str = include_str!("../../../../docs/membership.md");

#[tokio::test(flavor = "multi_thread")]
async fn the_month_of_the_document_clears_as_it_says() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (lin, chen) = (world.join("138").await, world.join("139").await);
        world.report(&purchase("tea", "mall-1", 10_000, &lin)).await.expect("it is posted");
        world.report(&purchase("stay", "hotel-1", 100_000, &lin)).await.expect("it is posted");
        world.report(&purchase("shoes", "mall-1", 5_000, &chen)).await.expect("it is posted");
        world.spend(&lin, 500, "late-check-out").await.expect("it is enough");
        world.report(&refund("tea-back", "tea", "mall-1", 10_000)).await.expect("it is taken back");
        let fee = world.report(&purchase("fee", "community-1", 300_000, &lin)).await.expect("it is posted");
        assert_eq!((fee.points, world.holds(&lin).await), (300, (1_300, 800, 0)));
        let left = world.membership.close_member(&world.admin, &chen, "asked", Some("left")).await.expect("it ends");
        assert_eq!(left.points_forfeited, 50);

        world.kernel.clock.set(at(30));
        let clearing = world.membership.close(&world.admin, "2026-11").await.expect("it is over");
        for line in [Line::Mall, Line::Hotel, Line::Community] {
            let row = clearing.lines.iter().find(|row| row.line == line).expect("every line");
            let cells = [row.issued_fen, row.refunded_fen, row.forfeited_fen, row.spent_fen, row.net_fen].map(|fen| fen.to_string());
            let told = format!("| {line} | {} | {} | {} |", row.issued_points, row.spent_points, cells.join(" | "));
            assert!(DOCUMENT.contains(&told), "the document has no row {told}");
        }
        let centre = clearing.centre;
        let told = format!(
            "| points centre | – | – | recovered {} points, {} fen | {} |",
            centre.recovered_points, centre.recovered_fen, centre.net_fen
        );
        assert!(DOCUMENT.contains(&told), "the document has no row {told}");
        for cell in &clearing.matrix {
            let told = format!("| {} | {} | {} | {} |", cell.issuer, cell.spender, cell.points, cell.fen);
            assert!(DOCUMENT.contains(&told), "the document has no row {told}");
        }
        world.sound().await;
    })
    .await;
}
