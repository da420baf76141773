//! Business lines (业态) and the kinds of units in the group's tree.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A business line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Homes for sale.
    Residential,
    /// Shopping centres; "retail" in earn rules.
    Mall,
    /// Office towers.
    Office,
    /// Hotels.
    Hotel,
    /// Property services (物业).
    Community,
}

impl Line {
    /// Every line, in the order of reports.
    pub const ALL: [Line; 5] = [Line::Residential, Line::Mall, Line::Office, Line::Hotel, Line::Community];

    /// The spelling used in JSON, tables and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Line::Residential => "residential",
            Line::Mall => "mall",
            Line::Office => "office",
            Line::Hotel => "hotel",
            Line::Community => "community",
        }
    }

    /// The line with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<Line> {
        Line::ALL.into_iter().find(|line| line.as_str() == text)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an org unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitKind {
    /// 集团
    Group,
    /// 城市公司
    City,
    /// 项目: a residential project
    Project,
    /// 商业中心
    Mall,
    /// 酒店
    Hotel,
    /// 写字楼
    Office,
    /// 社区
    Community,
}

impl UnitKind {
    /// Every kind.
    pub const ALL: [UnitKind; 7] =
        [UnitKind::Group, UnitKind::City, UnitKind::Project, UnitKind::Mall, UnitKind::Hotel, UnitKind::Office, UnitKind::Community];

    /// The spelling used in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            UnitKind::Group => "group",
            UnitKind::City => "city",
            UnitKind::Project => "project",
            UnitKind::Mall => "mall",
            UnitKind::Hotel => "hotel",
            UnitKind::Office => "office",
            UnitKind::Community => "community",
        }
    }

    /// The kind with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<UnitKind> {
        UnitKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}
