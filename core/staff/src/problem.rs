//! What can stand against a log-in, once and for all.

/// The codes of this crate.
pub mod codes {
    use heyuan_kernel::{Code, Kind};

    /// No provider is in the settings.
    pub const STAFF_LOGIN_NOT_SET_UP: Code =
        Code::new(Kind::Conflict, "staff_login_not_set_up", "No provider is set up that staff log in with", "未配置员工登录服务");
    /// The ticket or the state is none of ours, was used or has expired, or the two are not of one log-in.
    pub const STAFF_STATE_REFUSED: Code = Code::new(
        Kind::Invalid,
        "staff_state_refused",
        "This log-in is not known, was finished or has expired",
        "登录请求无效、已完成或已过期",
    );
    /// The provider does not take the code.
    pub const STAFF_CODE_REFUSED: Code =
        Code::new(Kind::Invalid, "staff_code_refused", "The provider does not take the code (any more)", "登录服务未接受该授权码");
    /// What the provider says about the person is not believed.
    pub const ID_TOKEN_REFUSED: Code =
        Code::new(Kind::Forbidden, "id_token_refused", "The provider's token is not believed", "登录服务返回的令牌不可信");
    /// What somebody says that the provider tells of a log-out is not believed.
    pub const LOG_OUT_TOKEN_REFUSED: Code =
        Code::new(Kind::Invalid, "log_out_token_refused", "The log-out token is not believed", "登出令牌不可信");
    /// The provider knows the person, and the settings give them nothing.
    pub const NO_STAFF_ROLE: Code = Code::new(Kind::Forbidden, "no_staff_role", "The person has no role here", "该员工没有本系统的角色");
}
