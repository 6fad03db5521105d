//! What a plan asks of the device that it is for.

#[cfg(feature = "engine")]
pub(super) use with_engine::Computer;
#[cfg(not(feature = "engine"))]
pub(super) use without_engine::Computer;

#[cfg(feature = "engine")]
mod with_engine {
    use crate::advice::Failure;
    use crate::bench::speed::measure;
    use crate::commands::devices::open_device;
    use crate::config::RunConfig;
    use crate::engine::device::ComputeDevice;
    use crate::plan::{DeviceKind, Measured, RunPlan};

    /// The device of a configuration.
    pub(in crate::commands::plan) struct Computer(ComputeDevice);

    impl Computer {
        /// Opens it.
        ///
        /// # Errors
        /// When this build or this machine lacks it, or it lacks the number format.
        pub(in crate::commands::plan) fn of(config: &RunConfig) -> Result<Self, Failure> {
            let device = open_device(config.device)?;
            device.check_precision(config.training.precision)?;
            Ok(Self(device))
        }

        /// Its kind.
        pub(in crate::commands::plan) fn kind(&self) -> DeviceKind {
            DeviceKind::of(self.0.is_cpu)
        }

        /// Measures the stages of `plan`.
        ///
        /// # Errors
        /// When it fails.
        pub(in crate::commands::plan) fn measure(
            &self,
            config: &RunConfig,
            plan: &RunPlan,
        ) -> Result<Measured, Failure> {
            measure(&self.0, config, plan)
        }
    }
}

#[cfg(not(feature = "engine"))]
mod without_engine {
    use crate::advice::Failure;
    use crate::config::{DeviceChoice, RunConfig};
    use crate::plan::{DeviceKind, Measured, RunPlan};

    /// The device of a configuration, which this build cannot open.
    pub(in crate::commands::plan) struct Computer(DeviceChoice);

    #[expect(clippy::unnecessary_wraps, reason = "the same signatures as with the engine")]
    impl Computer {
        /// Takes it for what its name says.
        pub(in crate::commands::plan) fn of(config: &RunConfig) -> Result<Self, Failure> {
            Ok(Self(config.device))
        }

        /// Its kind.
        pub(in crate::commands::plan) fn kind(&self) -> DeviceKind {
            DeviceKind::of(matches!(self.0, DeviceChoice::Auto | DeviceChoice::Cpu))
        }

        /// Measures nothing.
        #[expect(clippy::unused_self, reason = "the same signature as with the engine")]
        pub(in crate::commands::plan) fn measure(
            &self,
            _config: &RunConfig,
            _plan: &RunPlan,
        ) -> Result<Measured, Failure> {
            Ok(Measured::default())
        }
    }
}
