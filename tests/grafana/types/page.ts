// The form of a dashboard of ours, from the types that Grafana publishes: what JSON can say of each panel.
import type {
  AnnotationQuery,
  Dashboard,
  DataQuery,
  GraphFieldConfig,
  Panel,
  RowPanel,
  TableFieldOptions,
} from '@grafana/schema';
import type { Options as BarGauge } from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type { Options as Stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {
  FieldConfig as StatesField,
  Options as States,
} from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type { Options as Table } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type { Options as Lines } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has no enums: a field of an enum may be any of its values.
type Plain<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends number | boolean | null | undefined
      ? T
      : T extends Array<infer U>
        ? Array<Plain<U>>
        : { [K in keyof T]: Plain<T[K]> };

// A query to Prometheus; its type is no part of @grafana/schema.
interface PrometheusQuery extends DataQuery {
  expr: string;
  editorMode: 'code' | 'builder';
  legendFormat: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  range?: boolean;
}

// What the Prometheus data source reads of an annotation beside Grafana's own fields.
interface PrometheusMark {
  titleFormat?: string;
  textFormat?: string;
  useValueForTime?: boolean;
}

type Of<Type extends string, Options, Field = Record<never, never>> = Omit<
  Panel<never, Field>,
  'type' | 'options' | 'targets' | 'fieldConfig'
> & {
  type: Type;
  options: Options;
  targets: PrometheusQuery[];
  fieldConfig: {
    defaults: Omit<NonNullable<Panel['fieldConfig']>['defaults'], 'custom'> & { custom: Field };
    overrides: NonNullable<Panel['fieldConfig']>['overrides'];
  };
};

// The options of the list of alerts are no part of @grafana/schema either.
type Alerts = Omit<Panel, 'type'> & { type: 'alertlist' };

export type Page = Plain<
  Omit<Dashboard, 'panels' | 'annotations'> & {
    panels: Array<
      | RowPanel
      | Of<'stat', Stat>
      | Of<'timeseries', Lines, GraphFieldConfig>
      | Of<'state-timeline', States, StatesField>
      | Of<'bargauge', BarGauge>
      | Of<'table', Table, TableFieldOptions>
      | Alerts
    >;
    annotations: { list: Array<AnnotationQuery<PrometheusQuery> & PrometheusMark> };
  }
>;
