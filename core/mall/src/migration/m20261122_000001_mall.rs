//! The mall's first tables: merchants, products, payments, orders, vouchers, refunds, the payment inbox and the gateway's outbox.

use heyuan_kernel::migration::SqlMigration;

/// Retention: merchants and products stay; orders, payments, refunds, vouchers, stock changes and settlement entries are books of
/// trade and stay (ten years by law, longer than a tenant's first decade); the inbox of notifications stays with the payments that
/// it proves; requests to the gateway stay as proof of money given back.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261122_000001_mall",
    up: "
CREATE TABLE mall_merchant (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, unit TEXT NOT NULL, line TEXT NOT NULL,
  commission_numerator BIGINT NOT NULL, commission_denominator BIGINT NOT NULL
);
CREATE TABLE mall_product (
  id TEXT PRIMARY KEY, merchant TEXT NOT NULL REFERENCES mall_merchant (id), unit TEXT NOT NULL, name TEXT NOT NULL,
  category TEXT NOT NULL, kind TEXT NOT NULL, price BIGINT NOT NULL, voucher_valid_days BIGINT,
  stock BIGINT NOT NULL CHECK (stock >= 0)
);
CREATE INDEX mall_product_merchant ON mall_product (merchant, id);
CREATE TABLE mall_stock_change (
  idempotency TEXT PRIMARY KEY, digest TEXT NOT NULL, product TEXT NOT NULL, change BIGINT NOT NULL, reason TEXT NOT NULL,
  stock_after BIGINT NOT NULL, actor TEXT NOT NULL, changed_at BIGINT NOT NULL
);
CREATE TABLE mall_payment (
  id TEXT PRIMARY KEY, member TEXT NOT NULL, amount BIGINT NOT NULL, discount BIGINT NOT NULL, refunded BIGINT NOT NULL,
  state TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, paid_at BIGINT, gateway_transaction TEXT,
  idempotency TEXT NOT NULL UNIQUE, digest TEXT NOT NULL
);
CREATE INDEX mall_payment_due ON mall_payment (expires_at) WHERE state = 'created';
CREATE TABLE mall_order (
  id TEXT PRIMARY KEY, payment TEXT NOT NULL REFERENCES mall_payment (id), member TEXT NOT NULL, merchant TEXT NOT NULL,
  unit TEXT NOT NULL, line TEXT NOT NULL, amount BIGINT NOT NULL, refunded BIGINT NOT NULL, state TEXT NOT NULL,
  commission_numerator BIGINT NOT NULL, commission_denominator BIGINT NOT NULL, created_at BIGINT NOT NULL, paid_at BIGINT
);
CREATE INDEX mall_order_payment ON mall_order (payment);
CREATE INDEX mall_order_member ON mall_order (member, id);
CREATE TABLE mall_order_line (
  order_id TEXT NOT NULL REFERENCES mall_order (id), product TEXT NOT NULL, category TEXT NOT NULL, kind TEXT NOT NULL,
  quantity BIGINT NOT NULL, price BIGINT NOT NULL, discount BIGINT NOT NULL, amount BIGINT NOT NULL,
  refunded_quantity BIGINT NOT NULL, refunded_amount BIGINT NOT NULL, PRIMARY KEY (order_id, product),
  CHECK (refunded_quantity <= quantity AND refunded_amount <= amount)
);
CREATE TABLE mall_notification (
  event_id TEXT PRIMARY KEY, digest TEXT NOT NULL, kind TEXT NOT NULL, reference TEXT NOT NULL, gateway_transaction TEXT NOT NULL,
  amount BIGINT NOT NULL, occurred_at BIGINT NOT NULL, received_at BIGINT NOT NULL, outcome TEXT
);
CREATE INDEX mall_notification_open ON mall_notification (received_at) WHERE outcome IS NULL;
CREATE TABLE mall_voucher (
  id TEXT PRIMARY KEY, source TEXT NOT NULL UNIQUE, code_hash TEXT NOT NULL UNIQUE, code_sealed {bytes} NOT NULL,
  member TEXT NOT NULL, merchant TEXT NOT NULL, unit TEXT NOT NULL, product TEXT NOT NULL, order_id TEXT, state TEXT NOT NULL,
  issued_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, redeemed_at BIGINT, redeemed_unit TEXT, counter_reference TEXT,
  redemption TEXT UNIQUE, digest TEXT
);
CREATE INDEX mall_voucher_member ON mall_voucher (member, id);
CREATE INDEX mall_voucher_order ON mall_voucher (order_id, product, state);
CREATE TABLE mall_refund (
  id TEXT PRIMARY KEY, order_id TEXT NOT NULL REFERENCES mall_order (id), amount BIGINT NOT NULL, reason TEXT NOT NULL,
  refunded_at BIGINT NOT NULL, idempotency TEXT NOT NULL UNIQUE, digest TEXT NOT NULL
);
CREATE INDEX mall_refund_order ON mall_refund (order_id);
CREATE TABLE mall_refund_line (
  refund TEXT NOT NULL REFERENCES mall_refund (id), product TEXT NOT NULL, quantity BIGINT NOT NULL, amount BIGINT NOT NULL,
  PRIMARY KEY (refund, product)
);
CREATE TABLE mall_gateway_request (
  id TEXT PRIMARY KEY, payment TEXT NOT NULL, gateway_transaction TEXT NOT NULL, amount BIGINT NOT NULL, state TEXT NOT NULL,
  attempts BIGINT NOT NULL, next_at BIGINT NOT NULL, error TEXT, created_at BIGINT NOT NULL
);
CREATE INDEX mall_gateway_request_due ON mall_gateway_request (next_at) WHERE state = 'pending';
CREATE TABLE mall_settlement (
  id TEXT PRIMARY KEY, merchant TEXT NOT NULL, order_id TEXT NOT NULL, kind TEXT NOT NULL, amount BIGINT NOT NULL,
  commission BIGINT NOT NULL, settled_at BIGINT NOT NULL
);
CREATE INDEX mall_settlement_period ON mall_settlement (merchant, settled_at);
",
};
